//! Captures of calls from the command line.

use std::{
    fs::OpenOptions,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use clap::Subcommand;

use super::{Daemon, ask, change, print, show, unexpected};
use crate::control::{Request, Response};

/// Only who saves it: a capture has what people said.
const PRIVATE: u32 = 0o600;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Capture a call that stands, until it ends, is told to stop, or a limit is reached.
    Start {
        /// Its Call-ID, as `branchline calls` shows it.
        #[arg(long)]
        call_id: String,
        /// Stop after so many seconds.
        #[arg(long)]
        seconds: Option<u64>,
        /// Stop when the file has so many MiB.
        #[arg(long)]
        mib: Option<u64>,
        /// Seal the file with the appliance's key, whatever the configuration says.
        #[arg(long)]
        encrypt: bool,
        #[command(flatten)]
        daemon: Daemon,
    },
    /// Stop a capture.
    Stop {
        /// Its name.
        name: String,
        #[command(flatten)]
        daemon: Daemon,
    },
    /// Show the captures.
    List {
        #[command(flatten)]
        daemon: Daemon,
    },
    /// Save a capture as a pcapng file, opened if it is sealed.
    Save {
        /// Its name.
        name: String,
        /// Where to; it must not exist yet.
        file: PathBuf,
        #[command(flatten)]
        daemon: Daemon,
    },
    /// Remove a capture that has ended.
    Remove {
        /// Its name.
        name: String,
        #[command(flatten)]
        daemon: Daemon,
    },
}

pub(super) async fn execute(command: Command) -> Result<ExitCode, String> {
    match command {
        Command::Start { call_id, seconds, mib, encrypt, daemon } => {
            let request = Request::StartCapture { call_id, seconds, mib, encrypt: encrypt.then_some(true) };
            match ask(&daemon, &request).await? {
                Response::CaptureStarted(started) => {
                    print(daemon.format.output, &started, |started| format!("{}\n", started.name));
                }
                other => return unexpected(&other),
            }
        }
        Command::Stop { name, daemon } => return change(&daemon, &Request::StopCapture { name }).await,
        Command::Remove { name, daemon } => return change(&daemon, &Request::RemoveCapture { name }).await,
        Command::List { daemon } => match ask(&daemon, &Request::Captures).await? {
            Response::Captures(list) => print(daemon.format.output, &list, |list| show::captures(list)),
            other => return unexpected(&other),
        },
        Command::Save { name, file, daemon } => return save(&daemon, &name, &file).await,
    }
    Ok(ExitCode::SUCCESS)
}

async fn save(daemon: &Daemon, name: &str, path: &Path) -> Result<ExitCode, String> {
    let wrong = |error: std::io::Error| format!("{}: {error}", path.display());
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(PRIVATE).open(path).map_err(wrong)?;
    for number in 0.. {
        let part = match ask(daemon, &Request::CapturePart { name: name.to_owned(), number }).await {
            Ok(Response::CapturePart(part)) => part,
            Ok(other) => return unexpected(&other),
            Err(error) => {
                // What was not saved whole is not left to be taken for it.
                let _ = std::fs::remove_file(path);
                return Err(error);
            }
        };
        let content = BASE64_STANDARD.decode(part.content).map_err(|error| error.to_string())?;
        file.write_all(&content).map_err(wrong)?;
        if !part.more {
            break;
        }
    }
    file.sync_all().map_err(wrong)?;
    print(daemon.format.output, &"done", |done| format!("{done}\n"));
    Ok(ExitCode::SUCCESS)
}
