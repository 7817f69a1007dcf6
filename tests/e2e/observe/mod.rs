//! Seeing what goes on: what sidecars report, and who shows it.

mod dashboard;
mod load;
