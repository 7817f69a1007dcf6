//! What an operator sees of the mesh.

mod collector;
mod trace;
