//! What a request may do: rules that are asked before it goes anywhere.

pub mod global_rate_limit;
pub mod rate_limit;
