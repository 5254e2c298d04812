//! The command line: starts the daemon, or asks the one that runs.

mod bench_self;
mod capture;
mod doctor;
mod documents;
mod show;
mod trace;

use std::{
    io::IsTerminal as _,
    net::IpAddr,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{CommandFactory as _, Parser, Subcommand, ValueEnum};
use ipnet::IpNet;
use serde::Serialize;

use crate::{
    config::{Config, Control},
    control::{self, Request, Response, StatusView},
    daemon, log,
    net::DatapathChoice,
};

/// Where the configuration is unless told otherwise.
const CONFIG: &str = "/etc/branchline/branchline.toml";

/// A relay for the phones of a remote office: SIP in userspace, media in the kernel.
#[derive(Debug, Parser)]
#[command(name = "branchline", version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the appliance until it is told to stop.
    Run {
        /// The configuration file.
        #[arg(long, default_value = CONFIG)]
        config: PathBuf,
        /// The datapath, whatever the file says.
        #[arg(long, value_enum)]
        datapath: Option<DatapathChoice>,
    },
    /// Check a configuration file and say what is wrong with it.
    CheckConfig {
        /// The configuration file.
        #[arg(long, default_value = CONFIG)]
        config: PathBuf,
        #[command(flatten)]
        format: Format,
    },
    /// Show how the appliance is.
    Status {
        #[command(flatten)]
        daemon: Daemon,
    },
    /// Show the calls.
    Calls {
        /// Show the last calls that have ended too.
        #[arg(long)]
        ended: bool,
        /// Show this call, ended or not, with how good its streams are.
        #[arg(long)]
        call_id: Option<String>,
        #[command(flatten)]
        daemon: Daemon,
    },
    /// Show the flows: each direction of each stream, who carries it and why.
    Flows {
        /// Of this call only.
        #[arg(long)]
        call_id: Option<String>,
        #[command(flatten)]
        daemon: Daemon,
    },
    /// Show the phones: what each has asked for on its way to its registration.
    Phones {
        #[command(flatten)]
        daemon: Daemon,
    },
    /// Show the last lines of the phones' logs.
    Syslog {
        /// Of the phone with this IP address only.
        #[arg(long, value_name = "ADDRESS")]
        phone: Option<IpAddr>,
        /// How many.
        #[arg(long, default_value_t = 50)]
        lines: usize,
        #[command(flatten)]
        daemon: Daemon,
    },
    /// Captures of calls, for troubleshooting: show them, start, stop, save, remove one.
    Capture {
        #[command(subcommand)]
        command: capture::Command,
    },
    /// The SIP messages of calls, registrations and all else that has a Call-ID, as they came and as they went.
    Trace(trace::Trace),
    /// Prefixes whose packets the kernel drops: show them, deny one, allow one again.
    Deny {
        #[command(subcommand)]
        command: Option<Deny>,
        #[command(flatten)]
        daemon: Daemon,
    },
    /// Show the levels of the log's topics, or set one until the restart.
    Log {
        #[command(subcommand)]
        command: Option<Log>,
        #[command(flatten)]
        daemon: Daemon,
    },
    /// Show the central servers: which answer, which do not and why, and which is tried first.
    Servers {
        #[command(flatten)]
        daemon: Daemon,
    },
    /// Servers' certificates that no authority vouches for: look at them, trust one, forget one.
    Certificates {
        #[command(subcommand)]
        command: Option<Certificates>,
        #[command(flatten)]
        daemon: Daemon,
    },
    /// The credentials with which the appliance answers a server's challenge for a phone.
    Entries {
        #[command(subcommand)]
        command: Option<Entries>,
        #[command(flatten)]
        daemon: Daemon,
    },
    /// Start anew with the configuration as it is now, in place. Calls that stand are ended.
    Restart {
        #[command(flatten)]
        daemon: Daemon,
    },
    /// Write manual pages and completions, for packages.
    #[command(hide = true)]
    GenerateDocuments {
        /// Where to.
        directory: PathBuf,
    },
    /// Have the daemon read its configuration file again and apply what can be applied while calls stand.
    Reload {
        #[command(flatten)]
        daemon: Daemon,
    },
    /// Make a one-time link by which an administrator of the pages is set, or gets a new password.
    SetupLink {
        #[command(flatten)]
        daemon: Daemon,
    },
    /// Check what this host has and lacks for the appliance.
    Doctor {
        /// The configuration file whose interfaces are looked at: the package's, where it is and no other is named.
        /// Without one, all interfaces are.
        #[arg(long)]
        config: Option<PathBuf>,
        /// Attach the kernel program to each interface for a moment, to see whether its driver takes it.
        /// Some drivers restart the link for that: not while calls stand.
        #[arg(long)]
        try_attach: bool,
        /// The daemon's socket, to ask it what it has open if it runs.
        #[arg(long, default_value = Control::DEFAULT)]
        socket: PathBuf,
        #[command(flatten)]
        format: Format,
    },
    /// Measure what this box carries: packets a second without loss, CPU for each, and calls by codec. Takes a core for
    /// itself for that time: not while calls stand that matter.
    BenchSelf(bench_self::BenchSelf),
}

#[derive(Debug, Subcommand)]
enum Deny {
    /// Drop the packets of a prefix until the daemon ends, or for a time. The configuration has what is to stay.
    Add {
        /// An address, or a prefix such as 198.51.100.0/24.
        #[arg(value_parser = prefix)]
        prefix: IpNet,
        /// For so many minutes.
        #[arg(long)]
        minutes: Option<u64>,
        #[command(flatten)]
        daemon: Daemon,
    },
    /// Take that back.
    Remove {
        /// The prefix.
        #[arg(value_parser = prefix)]
        prefix: IpNet,
        #[command(flatten)]
        daemon: Daemon,
    },
}

/// A prefix, or an address alone.
fn prefix(text: &str) -> Result<IpNet, String> {
    text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).map_err(|_| {
        format!("{text:?} is neither an address nor a prefix such as 198.51.100.0/24 or 2001:db8::/32")
    })
}

#[derive(Debug, Subcommand)]
enum Log {
    /// Set a topic's level until the restart.
    Set {
        /// sip, media, datapath, servers, provisioning, web or status.
        topic: String,
        /// off, error, warn, info, debug or trace; or default: as configured.
        level: String,
        #[command(flatten)]
        daemon: Daemon,
    },
}

#[derive(Debug, Subcommand)]
enum Certificates {
    /// Print the certificate of the appliance's own authority, PEM: what phones are to trust.
    Authority {
        #[command(flatten)]
        daemon: Daemon,
    },
    /// Trust a server's certificate from now on: look at it first.
    Trust {
        /// Its fingerprint, or at least 8 digits of its beginning.
        fingerprint: String,
        #[command(flatten)]
        daemon: Daemon,
    },
    /// Forget a certificate, trusted or not.
    Forget {
        /// Its fingerprint, or at least 8 digits of its beginning.
        fingerprint: String,
        #[command(flatten)]
        daemon: Daemon,
    },
}

#[derive(Debug, Subcommand)]
enum Entries {
    /// Add an entry, or replace the one of this registration. The password is the first line of standard input.
    Set {
        /// The registration: the user part of the phone's address-of-record.
        registration_id: String,
        /// The user name at the server, when it is another.
        #[arg(long)]
        user: Option<String>,
        /// An extension that it may be used for too; may be given several times.
        #[arg(long = "alias")]
        aliases: Vec<String>,
        #[command(flatten)]
        daemon: Daemon,
    },
    /// Remove an entry.
    Remove {
        /// Its registration.
        registration_id: String,
        #[command(flatten)]
        daemon: Daemon,
    },
}

#[derive(Debug, clap::Args)]
struct Format {
    /// How to print.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Debug, clap::Args)]
struct Daemon {
    /// The daemon's socket.
    #[arg(long, default_value = Control::DEFAULT)]
    socket: PathBuf,
    #[command(flatten)]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("no runtime: {error}")),
    };
    match runtime.block_on(execute(arguments.command)) {
        Ok(code) => code,
        Err(message) => fail(&message),
    }
}

fn fail(message: &str) -> ExitCode {
    eprintln!("branchline: {message}");
    ExitCode::FAILURE
}

async fn execute(command: Command) -> Result<ExitCode, String> {
    match command {
        Command::Run { config: file, datapath } => {
            let mut config = Config::read(&file).map_err(|error| error.to_string())?;
            if let Some(wanted) = datapath {
                config.datapath.engine = wanted;
            }
            let log = log::start(&config.log);
            let ended =
                daemon::run(&config, &file, datapath, log).await.map_err(|error| error.to_string())?;
            if ended == daemon::Ended::Restart {
                return Err(start_anew());
            }
        }
        Command::CheckConfig { config: file, format } => return check_config(&file, format.output),
        Command::Status { daemon } => match ask(&daemon, &Request::Status).await? {
            Response::Status(status) => print(daemon.format.output, &*status, show::status),
            other => return unexpected(&other),
        },
        Command::Calls { ended, call_id, daemon } => {
            let wanted = call_id.clone();
            match ask(&daemon, &Request::Calls { ended, call_id }).await? {
                Response::Calls(calls) if calls.is_empty() && wanted.is_some() => {
                    return Err("there is no such call, or it is forgotten".to_owned());
                }
                Response::Calls(calls) => print(daemon.format.output, &calls, |calls| show::calls(calls)),
                other => return unexpected(&other),
            }
        }
        Command::Flows { call_id, daemon } => match ask(&daemon, &Request::Flows { call_id }).await? {
            Response::Flows(flows) => print(daemon.format.output, &flows, |flows| show::flows(flows)),
            other => return unexpected(&other),
        },
        Command::Phones { daemon } => match ask(&daemon, &Request::Phones).await? {
            Response::Phones(phones) => print(daemon.format.output, &phones, |phones| show::phones(phones)),
            other => return unexpected(&other),
        },
        Command::Syslog { phone, lines, daemon } => {
            let request = Request::Syslog { phone: phone.map(|phone| phone.to_string()), lines };
            match ask(&daemon, &request).await? {
                Response::Syslog(log) => print(daemon.format.output, &log, |log| show::syslog(log)),
                other => return unexpected(&other),
            }
        }
        Command::Capture { command } => return capture::execute(command).await,
        Command::Trace(wanted) => return trace::execute(wanted).await,
        Command::Deny { command: None, daemon } => match ask(&daemon, &Request::Denials).await? {
            Response::Denials(list) => print(daemon.format.output, &list, |list| show::denials(list)),
            other => return unexpected(&other),
        },
        Command::Deny { command: Some(Deny::Add { prefix, minutes, daemon }), .. } => {
            return change(&daemon, &Request::Deny { prefix, minutes }).await;
        }
        Command::Deny { command: Some(Deny::Remove { prefix, daemon }), .. } => {
            return change(&daemon, &Request::Allow { prefix }).await;
        }
        Command::Log { command: None, daemon } => match ask(&daemon, &Request::Log).await? {
            Response::Log(log) => print(daemon.format.output, &log, show::log),
            other => return unexpected(&other),
        },
        Command::Log { command: Some(Log::Set { topic, level, daemon }), .. } => {
            return change(&daemon, &Request::SetLogTopic { topic, level }).await;
        }
        Command::Servers { daemon } => match ask(&daemon, &Request::Status).await? {
            Response::Status(status) => {
                print(daemon.format.output, &status.servers, |servers| show::servers(servers));
            }
            other => return unexpected(&other),
        },
        Command::Certificates { command: None, daemon } => {
            match ask(&daemon, &Request::Certificates).await? {
                Response::Certificates(list) => {
                    print(daemon.format.output, &list, |list| show::certificates(list));
                }
                other => return unexpected(&other),
            }
        }
        Command::Certificates { command: Some(Certificates::Authority { daemon }), .. } => {
            match ask(&daemon, &Request::Authority).await? {
                Response::Authority(pem) => print(daemon.format.output, &pem, |pem| pem.clone()),
                other => return unexpected(&other),
            }
        }
        Command::Certificates { command: Some(Certificates::Trust { fingerprint, daemon }), .. } => {
            let by = format!("the command line (user {})", user());
            return change(&daemon, &Request::TrustCertificate { fingerprint, by }).await;
        }
        Command::Certificates { command: Some(Certificates::Forget { fingerprint, daemon }), .. } => {
            return change(&daemon, &Request::ForgetCertificate { fingerprint }).await;
        }
        Command::Entries { command: None, daemon } => match ask(&daemon, &Request::Entries).await? {
            Response::Entries(entries) => print(daemon.format.output, &entries, |list| show::entries(list)),
            other => return unexpected(&other),
        },
        Command::Entries {
            command: Some(Entries::Set { registration_id, user, aliases, daemon }), ..
        } => {
            let mut password = String::new();
            let stdin = std::io::stdin();
            let read = if stdin.is_terminal() {
                rpassword::prompt_password(format!("Password of {registration_id}: "))
                    .map(|typed| password = typed)
            } else {
                stdin.read_line(&mut password).map(drop)
            };
            read.map_err(|error| format!("the password cannot be read from standard input: {error}"))?;
            let password = password.trim_end_matches(['\r', '\n']).to_owned();
            let user = user.unwrap_or_else(|| registration_id.clone());
            return change(&daemon, &Request::PutEntry { registration_id, user, password, aliases }).await;
        }
        Command::Entries { command: Some(Entries::Remove { registration_id, daemon }), .. } => {
            return change(&daemon, &Request::RemoveEntry { registration_id }).await;
        }
        Command::Restart { daemon } => return change(&daemon, &Request::Restart).await,
        Command::GenerateDocuments { directory } => {
            documents::generate(Arguments::command(), &directory)
                .map_err(|error| format!("{}: {error}", directory.display()))?;
        }
        Command::Reload { daemon } => match ask(&daemon, &Request::Reload).await? {
            Response::Reloaded(done) => print(daemon.format.output, &done, show::reloaded),
            other => return unexpected(&other),
        },
        Command::SetupLink { daemon } => match ask(&daemon, &Request::SetupLink).await? {
            Response::SetupLink(link) => print(daemon.format.output, &link, show::setup_link),
            other => return unexpected(&other),
        },
        Command::Doctor { config, try_attach, socket, format } => {
            let config = configured(config)?;
            let running = running(&socket).await;
            let findings = doctor::examine(
                config.as_ref(),
                if try_attach { doctor::Attach::Try } else { doctor::Attach::Leave },
                running.as_ref(),
            )
            .await;
            print(format.output, &findings, |findings| doctor::show(findings));
            if findings.iter().any(|finding| finding.verdict == doctor::Verdict::Missing) {
                return Ok(ExitCode::FAILURE);
            }
        }
        Command::BenchSelf(wanted) => {
            let config = configured(wanted.config.clone())?;
            let running = running(&wanted.socket).await;
            let told = bench_self::run(&wanted, config.as_ref(), running.as_ref()).await?;
            print(wanted.format.output, &told, bench_self::show);
            if !told.held() {
                return Ok(ExitCode::FAILURE);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The configuration that is named, or the package's, where it is.
fn configured(file: Option<PathBuf>) -> Result<Option<Config>, String> {
    let file = file.or_else(|| Some(PathBuf::from(CONFIG)).filter(|file| file.exists()));
    file.map(|file| Config::read(&file)).transpose().map_err(|error| error.to_string())
}

/// How a daemon is that runs. That none runs is no finding: the host may be looked at before the first start.
async fn running(socket: &Path) -> Option<StatusView> {
    match control::ask(socket, &Request::Status).await {
        Ok(Response::Status(status)) => Some(*status),
        _ => None,
    }
}

async fn ask(daemon: &Daemon, request: &Request) -> Result<Response, String> {
    control::ask(&daemon.socket, request).await
}

/// Replaces this process by a new one of the same program with the same arguments: what supervises it sees no end.
/// Returns only what went wrong.
fn start_anew() -> String {
    use std::os::unix::process::CommandExt as _;
    // The program may have been replaced by an upgrade; the new one is at the same place.
    let program = match std::env::current_exe() {
        Ok(path) => PathBuf::from(path.to_string_lossy().trim_end_matches(" (deleted)")),
        Err(error) => return format!("cannot start anew: {error}"),
    };
    let error = std::process::Command::new(&program).args(std::env::args_os().skip(1)).exec();
    format!("cannot start anew: {}: {error}", program.display())
}

/// Asks for a change, and says that it was made.
async fn change(daemon: &Daemon, request: &Request) -> Result<ExitCode, String> {
    match ask(daemon, request).await? {
        Response::Done => {
            print(daemon.format.output, &"done", |done| format!("{done}\n"));
            Ok(ExitCode::SUCCESS)
        }
        other => unexpected(&other),
    }
}

/// Who asks, for the record.
fn user() -> String {
    ["SUDO_USER", "USER", "LOGNAME"]
        .iter()
        .find_map(|name| std::env::var(name).ok())
        .unwrap_or_else(|| "unknown".to_owned())
}

fn unexpected(response: &Response) -> Result<ExitCode, String> {
    Err(format!("the daemon answered something else than was asked: {response:?}"))
}

fn print<T: Serialize>(output: Output, value: &T, text: impl FnOnce(&T) -> String) {
    match output {
        Output::Text => print!("{}", text(value)),
        Output::Json => match serde_json::to_string_pretty(value) {
            Ok(json) => println!("{json}"),
            Err(error) => eprintln!("branchline: {error}"),
        },
    }
}

fn check_config(file: &Path, output: Output) -> Result<ExitCode, String> {
    /// The result for programs.
    #[derive(Serialize)]
    struct Checked {
        valid: bool,
        file: String,
        line: Option<usize>,
        key: Option<String>,
        message: Option<String>,
    }
    let result = Config::read(file);
    if output == Output::Json {
        let error = result.as_ref().err();
        let checked = Checked {
            valid: error.is_none(),
            file: file.display().to_string(),
            line: error.and_then(|error| error.line),
            key: error.map(|error| error.key.clone()),
            message: error.map(|error| error.message.clone()),
        };
        print(output, &checked, |_| String::new());
        return Ok(if checked.valid { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let config = result.map_err(|error| error.to_string())?;
    println!("{} is valid", file.display());
    for (_, network) in config.networks() {
        println!(
            "  network {}: interface {}, SIP port {}",
            network.name, network.interface, network.sip_port
        );
    }
    Ok(ExitCode::SUCCESS)
}
