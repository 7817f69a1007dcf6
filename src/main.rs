//! The sidecar as a program. See `pillion_proxy::app`.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    pillion_proxy::main(std::env::args_os())
}
