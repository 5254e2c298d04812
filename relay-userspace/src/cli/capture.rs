//! Captures from the command line.

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
use crate::{
    capture::Target,
    control::{Request, Response},
};

/// Only who saves it: a capture has what people said.
const PRIVATE: u32 = 0o600;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Capture a call that stands, until it ends, is told to stop, or a limit is reached; or all calls of a phone or an
    /// address.
    Start {
        /// A call, by its Call-ID, as `branchline calls` shows it.
        #[arg(long, required_unless_present_any = ["phone", "address"], conflicts_with_all = ["phone", "address"])]
        call_id: Option<String>,
        /// A phone that is registered, by its address-of-record or user, as `branchline phones` shows it.
        #[arg(long, conflicts_with = "address")]
        phone: Option<String>,
        /// An IP address, or a prefix such as 192.0.2.0/28, of phones or of servers of media.
        #[arg(long)]
        address: Option<String>,
        /// Encrypt the file to this public key of age (age1...), besides those of the configuration; may be given several
        /// times.
        #[arg(long = "recipient", value_name = "KEY")]
        recipients: Vec<String>,
        /// Keep the keys of SRTP that session descriptions carry; they are masked else.
        #[arg(long)]
        with_srtp_keys: bool,
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
    /// Save a capture as a pcapng file, opened if it is sealed; one that is encrypted to recipients stays so, for
    /// `age --decrypt`.
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
        Command::Start {
            call_id,
            phone,
            address,
            recipients,
            with_srtp_keys,
            seconds,
            mib,
            encrypt,
            daemon,
        } => {
            let target = Target::of(call_id.as_deref(), phone.as_deref(), address.as_deref())?;
            let encrypt = encrypt.then_some(true);
            let request = Request::StartCapture { target, recipients, with_srtp_keys, seconds, mib, encrypt };
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
