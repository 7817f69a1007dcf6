//! The `pillion` program; see the library for what it does.

use std::process::ExitCode;

use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    pillion_cli::main(std::env::args_os())
}
