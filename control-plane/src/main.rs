//! `pillion-control-plane`: see the library of the same name.

use std::process::ExitCode;

fn main() -> ExitCode {
    pillion_control_plane::main(std::env::args_os())
}
