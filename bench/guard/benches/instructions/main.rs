//! Instructions of what userspace does for each message and each packet, counted by Valgrind's Callgrind: the same on every
//! run of the same program, but for what a hash table's seed changes, whatever else the machine does.
//! `cargo xtask bench instructions` runs it and holds the counts against `bench/baseline/instructions.json`.
//!
//! Each row is one whole step as the daemon takes it, on messages as phones and servers send them, and is counted in a
//! process of its own, so that no row changes the memory that another meets. Callgrind counts while [`counted`] runs, and
//! not while a row is prepared. Without arguments every row runs once, uncounted.

mod steps;

use std::{env, process::ExitCode};

/// The one function that Callgrind counts in. It takes a closure by reference, so that there is one of it.
#[inline(never)]
fn counted(step: &mut dyn FnMut()) {
    step();
    // A call in the last place would be a jump out of this function.
    std::hint::black_box(());
}

/// A row: its name, and what prepares and takes its step.
struct Row {
    name: &'static str,
    run: fn(),
}

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        [] => {
            for row in &steps::ROWS {
                (row.run)();
                println!("{}: ran", row.name);
            }
            ExitCode::SUCCESS
        }
        ["list"] => {
            steps::ROWS.iter().for_each(|row| println!("{}", row.name));
            ExitCode::SUCCESS
        }
        ["count", name] => match steps::ROWS.iter().find(|row| row.name == name) {
            Some(row) => {
                (row.run)();
                ExitCode::SUCCESS
            }
            None => {
                eprintln!("there is no row `{name}`; `list` names them");
                ExitCode::FAILURE
            }
        },
        _ => {
            eprintln!("arguments: none, `list`, or `count ROW`");
            ExitCode::FAILURE
        }
    }
}
