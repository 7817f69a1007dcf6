//! What keeps one failure from becoming many: pure cores, to which time and chance are arguments.

pub mod budget;
pub mod deadline;
pub mod joined;
pub mod retry;

pub use budget::Budget;
