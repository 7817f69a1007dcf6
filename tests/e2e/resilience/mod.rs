//! What the mesh does when services fail, slow down, move and overload.

mod balance;
mod rate_limits;
