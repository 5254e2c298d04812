//! Manual pages and completions, made from the command line's own description when a package is made.

use std::{fs, io, path::Path};

use clap_complete::Shell;

/// Writes them below a directory: `man/*.1` and `branchline.bash`.
pub(super) fn generate(command: clap::Command, directory: &Path) -> io::Result<()> {
    let manual = directory.join("man");
    fs::create_dir_all(&manual)?;
    clap_mangen::generate_to(command.clone(), &manual)?;
    let mut command = command;
    clap_complete::generate_to(Shell::Bash, &mut command, "branchline", directory).map(drop)
}
