//! What the mesh does when services fail, slow down, move and overload.

mod balance;
mod breaker;
mod fallback;
mod limits;
mod rate_limits;
