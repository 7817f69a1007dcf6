//! A directory of YAML files as a source.
//!
//! [`scan`] finds and reads files, [`state`] turns their documents into the set of
//! objects in force, [`watch`] does both again whenever something changes.

pub mod scan;
pub mod state;
pub mod watch;
