//! Traces from the command line.

use std::{
    fs::OpenOptions,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use super::{Daemon, ask, print, show, unexpected};
use crate::{
    control::{Request, Response},
    trace::{Detail, Report, TraceView, ladder, pcapng, steps},
};

/// Only who saves it: messages say who has called whom.
const PRIVATE: u32 = 0o600;

#[derive(Debug, clap::Args)]
pub(super) struct Trace {
    /// The messages of this Call-ID, as a ladder; without it, the last Call-IDs are listed.
    #[arg(long)]
    call_id: Option<String>,
    /// Show whole messages after the ladder.
    #[arg(long, requires = "call_id")]
    messages: bool,
    /// Show below each message that was sent on what was changed in it.
    #[arg(long, requires = "call_id")]
    changes: bool,
    /// Write the messages to a pcapng file for Wireshark or sngrep instead; it must not exist yet. What TCP and TLS carried
    /// is in it as UDP, in clear.
    #[arg(long, requires = "call_id", value_name = "FILE")]
    pcap: Option<PathBuf>,
    /// List so many.
    #[arg(long, default_value_t = 50, value_name = "NUMBER")]
    last: usize,
    #[command(flatten)]
    daemon: Daemon,
}

pub(super) async fn execute(wanted: Trace) -> Result<ExitCode, String> {
    let Trace { call_id, messages, changes, pcap, last, daemon } = wanted;
    let format = daemon.format.output;
    let Some(call_id) = call_id else {
        match ask(&daemon, &Request::Traces { last }).await? {
            Response::Traces(traces) => print(format, &traces, show::traces),
            other => return unexpected(&other),
        }
        return Ok(ExitCode::SUCCESS);
    };
    let trace = match whole(&daemon, &call_id).await? {
        Ok(trace) => trace,
        Err(other) => return unexpected(&other),
    };
    if let Some(path) = pcap {
        save(&path, &pcapng(&call_id, &trace.messages))?;
        print(format, &"done", |done| format!("{done}\n"));
        return Ok(ExitCode::SUCCESS);
    }
    let detail = match (messages, changes) {
        (false, false) => Detail::Arrows,
        (false, true) => Detail::Changes,
        (true, false) => Detail::Messages,
        (true, true) => Detail::Everything,
    };
    let text = match format {
        super::Output::Text => ladder(&trace.summary, &trace.messages, &steps(&trace.messages), detail),
        super::Output::Json => String::new(),
    };
    print(format, &Report::of(trace), |_| text);
    Ok(ExitCode::SUCCESS)
}

/// The whole trace, part by part.
async fn whole(daemon: &Daemon, call_id: &str) -> Result<Result<TraceView, Response>, String> {
    let mut messages = Vec::new();
    loop {
        let request = Request::Trace { call_id: call_id.to_owned(), from: messages.len() };
        match ask(daemon, &request).await? {
            Response::Trace(part) => {
                messages.extend(part.messages);
                if !part.more {
                    return Ok(Ok(TraceView { messages, ..*part }));
                }
            }
            other => return Ok(Err(other)),
        }
    }
}

fn save(path: &Path, content: &[u8]) -> Result<(), String> {
    let wrong = |error: std::io::Error| format!("{}: {error}", path.display());
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(PRIVATE).open(path).map_err(wrong)?;
    file.write_all(content).and_then(|()| file.sync_all()).map_err(wrong)
}
