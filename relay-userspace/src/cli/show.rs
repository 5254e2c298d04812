//! Tables for people.

use std::fmt::Write as _;

use crate::{
    capture::CaptureView,
    config::UPSTREAM_GROUP,
    control::{
        CallView, CertificateView, DenialView, EntryView, FlowView, ListenerView, PhoneView, RefusalView,
        ReloadedView, ServerView, SetupLinkView, StatusView, TrunkView,
    },
    log::{LogView, escaped},
    provisioning::syslog::SyslogView,
    quality::{DirectionQuality, StreamQuality, Verdict},
    symptoms::Severity,
    trace::{Summary, TracesView},
};

/// Columns as wide as their widest cell, two blanks apart.
fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    // A Call-ID is what a peer says, and the terminal must not obey it.
    let rows: Vec<Vec<String>> =
        rows.iter().map(|row| row.iter().map(|cell| escaped(cell, usize::MAX)).collect()).collect();
    let mut widths: Vec<usize> = header.iter().map(|title| title.chars().count()).collect();
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    let titles: Vec<String> = header.iter().map(|title| (*title).to_owned()).collect();
    for row in std::iter::once(&titles).chain(&rows) {
        let line: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text.push_str(line.join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// How the appliance is.
pub(super) fn status(status: &StatusView) -> String {
    let mut text = String::new();
    let ready = match &status.not_ready_reason {
        None => "ready".to_owned(),
        Some(why) => format!("NOT READY: {why}"),
    };
    let datapath = match &status.datapath_reason {
        None => status.datapath.clone(),
        Some(why) => format!("{} ({why})", status.datapath),
    };
    let total = status.kernel_packets + status.userspace_packets;
    let share = if total == 0 {
        "-".to_owned()
    } else {
        format!("{:.2} %", status.kernel_packets as f64 * 100.0 / total as f64)
    };
    for (name, value) in [
        ("state", ready),
        ("version", status.version.clone()),
        ("running for", format!("{} s", status.uptime_seconds)),
        ("servers", servers_in_short(&status.servers)),
        ("survival", survival_in_short(status)),
        ("trunks", trunks_in_short(&status.trunks)),
        ("server plans", trunks_in_short(&status.plan_destinations)),
        ("emergency calls", emergency_in_short(status)),
        ("calls", status.calls_active.to_string()),
        ("registrations", status.registrations.to_string()),
        ("datapath", datapath),
        (
            "media packets",
            format!(
                "{} by the kernel, {} by userspace; in the kernel {share}",
                status.kernel_packets, status.userspace_packets
            ),
        ),
        ("flows", format!("{} of {}", status.flows, status.flow_table_size)),
        ("open files", format!("{} of {}", status.open_files, status.open_files_limit)),
        (
            "media sockets",
            status.media_sockets_limit.map_or_else(
                || "none: the kernel hands over what it does not forward".to_owned(),
                |limit| format!("{} of {limit}, one for each media port", status.media_sockets),
            ),
        ),
    ] {
        let _ = writeln!(text, "{name:<14} {value}");
    }
    for symptom in &status.symptoms {
        let severity = match symptom.severity {
            Severity::Notice => "notice",
            Severity::Warning => "WARNING",
            Severity::Critical => "CRITICAL",
        };
        let _ = writeln!(text, "{severity:<14} {}: {}; {}", symptom.subject, symptom.what, symptom.advice);
    }
    for network in &status.networks {
        for listener in network.listeners.iter().filter(|listener| listener.transport == "legacy-tls") {
            let _ = writeln!(
                text,
                "{:<14} network {:?} takes TLS 1.0 to 1.2 with RSA key exchange on port {}: for old phones alone",
                "LEGACY TLS", network.name, listener.port
            );
        }
    }
    let rows: Vec<Vec<String>> = status
        .networks
        .iter()
        .map(|network| {
            vec![
                network.name.clone(),
                network.role.clone(),
                network.interface.clone(),
                network.sip.clone(),
                listeners(&network.listeners),
                network.attached.clone(),
                format!("{} of {}", network.ports_used, network.ports),
                network.attached_reason.clone().unwrap_or_default(),
            ]
        })
        .collect();
    text.push('\n');
    text += &table(&["network", "role", "interface", "SIP", "ports", "attached", "media ports", ""], &rows);
    let rows: Vec<Vec<String>> = status
        .not_forwarded
        .iter()
        .filter(|(_, kernel, userspace)| kernel + userspace > 0)
        .map(|(reason, kernel, userspace)| vec![reason.clone(), kernel.to_string(), userspace.to_string()])
        .collect();
    if !rows.is_empty() {
        text.push('\n');
        text += &table(&["not forwarded", "by the kernel program", "by userspace"], &rows);
    }
    text
}

/// What reading the configuration again has changed.
pub(super) fn reloaded(done: &ReloadedView) -> String {
    let keys = |keys: &[String]| if keys.is_empty() { "nothing".to_owned() } else { keys.join(", ") };
    format!(
        "applied                {}\nwaiting for a restart  {}\n",
        keys(&done.applied),
        keys(&done.waiting_for_restart)
    )
}

/// A one-time link.
pub(super) fn setup_link(link: &SetupLinkView) -> String {
    format!(
        "Open one of these within {} hours; the first use counts:\n{}\n",
        link.valid_hours,
        link.links.join("\n")
    )
}

/// The log's levels.
pub(super) fn log(log: &LogView) -> String {
    let mut rows = vec![vec!["(base)".to_owned(), log.level.clone(), String::new()]];
    rows.extend(log.topics.iter().map(|topic| {
        let until = if topic.until_restart { "until the restart" } else { "" };
        let level = topic.level.clone().unwrap_or_else(|| "as the base".to_owned());
        vec![topic.topic.clone(), level, until.to_owned()]
    }));
    let mut text = table(&["topic", "level", ""], &rows);
    if log.fixed {
        text.push_str("\nRUST_LOG was set when the daemon started, and wins over all of these.\n");
    }
    let files = log.directory.as_deref().unwrap_or("none: standard error alone");
    let _ = writeln!(
        text,
        "\nfiles           {files}\nlines lost      {}\nfailed writes   {}",
        log.lines_lost, log.write_failures
    );
    text
}

/// Prefixes whose packets are dropped.
pub(super) fn denials(denials: &[DenialView]) -> String {
    if denials.is_empty() {
        return "nobody is denied\n".to_owned();
    }
    let rows: Vec<Vec<String>> = denials
        .iter()
        .map(|denial| {
            vec![
                denial.prefix.clone(),
                denial.packets.to_string(),
                denial.seconds_left.map_or_else(|| "no end".to_owned(), |left| format!("{left} s more")),
                denial.why.clone(),
            ]
        })
        .collect();
    table(&["prefix", "packets", "lasts", "why"], &rows)
}

/// Captures.
pub(super) fn captures(captures: &[CaptureView]) -> String {
    let rows: Vec<Vec<String>> = captures
        .iter()
        .map(|capture| {
            vec![
                capture.name.clone(),
                capture.state.clone(),
                capture.packets.to_string(),
                capture.dropped.to_string(),
                capture.bytes.to_string(),
                match (capture.encrypted, capture.recipients.len()) {
                    (false, _) => "no".to_owned(),
                    (true, 0) => "yes".to_owned(),
                    (true, recipients) => format!("age, to {recipients}"),
                },
                capture.target.clone(),
                capture.reason.clone().unwrap_or_default(),
            ]
        })
        .collect();
    table(&["capture", "state", "packets", "lost", "bytes", "sealed", "of", ""], &rows)
}

/// Whether the office is on its own, in a line.
fn survival_in_short(status: &StatusView) -> String {
    match status.survival_seconds {
        Some(seconds) if status.servers.iter().all(|server| server.group == UPSTREAM_GROUP) => {
            format!("the office is on its own for {seconds} s: no server can be reached")
        }
        Some(seconds) => format!(
            "the phones of {} are on their own for {seconds} s: no server of theirs can be reached",
            status.survival_groups.join(", ")
        ),
        None => "a server serves".to_owned(),
    }
}

/// Trunks, or destinations of server plans, in a line.
fn trunks_in_short(trunks: &[TrunkView]) -> String {
    if trunks.is_empty() {
        return "none".to_owned();
    }
    let words = trunks.iter().map(|trunk| format!("{}: {}", trunk.name, servers_in_short(&trunk.servers)));
    words.collect::<Vec<_>>().join(", ")
}

/// Where emergency calls go, in a line.
fn emergency_in_short(status: &StatusView) -> String {
    match status.emergency_calls_by.as_str() {
        "trunk" => "by a local trunk".to_owned(),
        _ => "BY THE SERVERS: no trunk is configured that carries them (docs/survival.md)".to_owned(),
    }
}

/// The last traces, and how much there is of them.
pub(super) fn traces(view: &TracesView) -> String {
    let row = |trace: &Summary| {
        vec![
            moment(trace.begun_unix_us),
            trace.method.clone(),
            trace.from.clone(),
            trace.to.clone(),
            format!("{}{}", trace.messages, if trace.left_out == 0 { "" } else { "+" }),
            trace.status.clone().unwrap_or_else(|| "-".to_owned()),
            trace.state.clone(),
            trace.call_id.clone(),
        ]
    };
    let rows: Vec<Vec<String>> = view.traces.iter().map(row).collect();
    let titles = ["begun", "request", "from", "to", "messages", "last status", "state", "call-id"];
    let mut text = table(&titles, &rows);
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let _ = writeln!(
        text,
        "\nIn memory {} traces, {:.1} of {:.0} MiB; {} let go of, {} messages lost.",
        view.kept,
        mib(view.bytes),
        mib(view.bytes_limit),
        view.evicted,
        view.lost
    );
    let _ = match &view.not_stored {
        None => {
            writeln!(text, "Stored {:.1} of {:.0} MiB.", mib(view.stored_bytes), mib(view.stored_bytes_limit))
        }
        Some(why) => writeln!(text, "None is stored: {why}"),
    };
    text
}

/// A time, UTC, from microseconds since 1970.
fn moment(unix_us: u64) -> String {
    let format = time::macros::format_description!("[year]-[month]-[day] [hour]:[minute]:[second]");
    let at = time::OffsetDateTime::from_unix_timestamp((unix_us / 1_000_000) as i64).ok();
    at.and_then(|at| at.format(format).ok()).unwrap_or_default()
}

/// The servers in a line.
fn servers_in_short(servers: &[ServerView]) -> String {
    let words = servers.iter().map(|server| {
        let address = server.address.as_deref().unwrap_or("no address");
        let group = match server.group.as_str() {
            "" | UPSTREAM_GROUP => String::new(),
            other => format!("{other}: "),
        };
        format!("{group}{address} {}{}", server.state, if server.preferred { " (preferred)" } else { "" })
    });
    words.collect::<Vec<_>>().join(", ")
}

/// The servers.
pub(super) fn servers(servers: &[ServerView]) -> String {
    let rows: Vec<Vec<String>> = servers
        .iter()
        .map(|server| {
            vec![
                server.group.clone(),
                server.server.clone(),
                server.address.clone().unwrap_or_else(|| "-".to_owned()),
                server.transport.clone().unwrap_or_else(|| "-".to_owned()),
                format!("{}{}", server.state, place(server)),
                server.since_seconds.map_or_else(|| "-".to_owned(), |seconds| format!("{seconds:.0} s")),
                known_by(server),
                server.round_trip_ms.map_or_else(|| "-".to_owned(), |time| format!("{time:.1} ms")),
                server.step.clone().unwrap_or_default(),
                server.reason.clone().unwrap_or_default(),
            ]
        })
        .collect();
    table(
        &["group", "server", "address", "by", "state", "for", "known by", "answers in", "fails at", ""],
        &rows,
    )
}

/// What a server is beside the others of its group.
fn place(server: &ServerView) -> &'static str {
    match (server.preferred, server.fallback) {
        (true, _) => ", preferred",
        (false, true) => ", fallback",
        (false, false) => "",
    }
}

/// By what it is known how a server is, and how long ago that was.
fn known_by(server: &ServerView) -> String {
    match (&server.known_by, server.updated_seconds) {
        (Some(by), Some(seconds)) => format!("{by}, {seconds:.0} s ago"),
        _ => "-".to_owned(),
    }
}

/// Ports by transport; a port that has several names them together.
fn listeners(listeners: &[ListenerView]) -> String {
    let words = listeners.iter().map(|listener| format!("{} {}", listener.transport, listener.port));
    words.collect::<Vec<_>>().join(", ")
}

/// The certificates.
pub(super) fn certificates(list: &[CertificateView]) -> String {
    if list.is_empty() {
        return "no server has shown a certificate that no authority vouches for\n".to_owned();
    }
    let mut text = String::new();
    for certificate in list {
        let state = match &certificate.trusted_by {
            Some(by) => format!("trusted by {by}"),
            None => format!("NOT TRUSTED: {}", certificate.why),
        };
        for (name, value) in [
            ("fingerprint", certificate.fingerprint.clone()),
            ("server", certificate.server.clone()),
            ("state", state),
            ("subject", certificate.subject.clone()),
            ("issuer", certificate.issuer.clone()),
            ("for", certificate.names.join(", ")),
            ("serial", certificate.serial.clone()),
            ("signature", certificate.signature_algorithm.clone()),
            ("valid", format!("{} to {}", certificate.not_before, certificate.not_after)),
        ] {
            let _ = writeln!(text, "{name:<12} {value}");
        }
        text.push('\n');
    }
    text
}

/// The authentication entries.
pub(super) fn entries(entries: &[EntryView]) -> String {
    if entries.is_empty() {
        return "no entries\n".to_owned();
    }
    let rows: Vec<Vec<String>> = entries
        .iter()
        .map(|entry| {
            let password = if entry.password_kept { "kept" } else { "forgotten" };
            vec![
                entry.registration_id.clone(),
                entry.user.clone(),
                entry.aliases.join(", "),
                password.to_owned(),
                entry.realms.join(", "),
            ]
        })
        .collect();
    table(&["registration", "user", "aliases", "password", "realms"], &rows)
}

/// The calls.
pub(super) fn calls(calls: &[CallView]) -> String {
    if calls.is_empty() {
        return "no calls\n".to_owned();
    }
    let rows: Vec<Vec<String>> = calls
        .iter()
        .map(|call| {
            vec![
                format!("{:.0} s", call.age_seconds),
                call.from.clone(),
                call.to.clone(),
                format!("{} > {}", call.from_network, call.to_network),
                call.outcome.clone().unwrap_or_else(|| call.state.clone()),
                call.answered_seconds.map_or_else(|| "-".to_owned(), |seconds| format!("{seconds:.1} s")),
                match (call.verdict, call.mos) {
                    (Some(verdict), Some(mos)) => format!("{mos:.2} {}", words(verdict)),
                    (Some(verdict), None) => format!("- {}", words(verdict)),
                    (None, _) => "-".to_owned(),
                },
                call.call_id.clone(),
            ]
        })
        .collect();
    let mut text = table(&["age", "from", "to", "networks", "state", "talked", "MOS", "call-id"], &rows);
    for stream in calls.iter().flat_map(|call| &call.streams) {
        let _ = write!(text, "\n{}", stream_quality(stream));
    }
    for call in calls.iter().filter(|call| !call.refusals.is_empty()) {
        let _ = writeln!(text, "\nsources refused in call {}", call.call_id);
        text.push_str(&refusals(&call.refusals));
    }
    text
}

/// The sources that were refused.
fn refusals(refusals: &[RefusalView]) -> String {
    let rows: Vec<Vec<String>> = refusals
        .iter()
        .map(|refusal| {
            vec![
                refusal.source.clone(),
                refusal.network.clone(),
                refusal.local.clone(),
                refusal.packets.to_string(),
                time_of_day(refusal.first_unix_ms),
                time_of_day(refusal.last_unix_ms),
                refusal.by.clone(),
            ]
        })
        .collect();
    table(&["source", "network", "at", "packets", "first (UTC)", "last (UTC)", "by"], &rows)
}

fn words(verdict: Verdict) -> String {
    verdict.as_label().replace('_', " ")
}

/// A stream: what is the matter, and each direction's figures side by side. What is not known is a dash.
fn stream_quality(stream: &StreamQuality) -> String {
    let mut text = format!("{}: {}", escaped(&stream.kind, usize::MAX), escaped(&stream.what, usize::MAX));
    if stream.worst > stream.verdict {
        let _ = write!(text, " (at its worst: {})", words(stream.worst));
    }
    text.push('\n');
    let number = |value: Option<f64>, digits: usize, unit: &str| {
        value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}{unit}"))
    };
    let dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    type Cell<'a> = (&'a str, &'a dyn Fn(&DirectionQuality) -> String);
    let cells: [Cell<'_>; 18] = [
        ("verdict", &|way| words(way.verdict)),
        ("sender", &|way| dash(&way.source)),
        ("codec", &|way| dash(&way.codec)),
        ("received", &|way| format!("{} of {}", way.received, way.expected)),
        ("lost before the appliance", &|way| number(way.loss_percent, 2, " %")),
        ("lost in all, by RTCP", &|way| number(way.reported_loss_percent, 2, " %")),
        ("lost lately, by RTCP", &|way| number(way.reported_recent_loss_percent, 2, " %")),
        ("discarded by the buffer", &|way| number(way.reported_discarded_percent, 2, " %")),
        ("burst ratio", &|way| number(way.burst_ratio, 2, "")),
        ("duplicates", &|way| way.duplicates.to_string()),
        ("overtaken", &|way| way.reordered.to_string()),
        ("jitter", &|way| number(way.jitter_ms, 2, " ms")),
        ("jitter by RTCP", &|way| number(way.reported_jitter_ms, 2, " ms")),
        ("round trip to the sender", &|way| number(way.round_trip_ms, 2, " ms")),
        ("one way, estimated", &|way| number(way.one_way_ms, 2, " ms")),
        ("R", &|way| match &way.scale {
            Some(scale) => format!("{} ({scale})", number(way.r_factor, 1, "")),
            None => "-".to_owned(),
        }),
        ("MOS listening, talking", &|way| {
            format!("{}, {}", number(way.mos_listening, 2, ""), number(way.mos_conversational, 2, ""))
        }),
        ("the same by RTCP XR", &|way| {
            let scores = [way.reported_mos_listening, way.reported_mos_conversational];
            format!("{}, {}", number(scores[0], 1, ""), number(scores[1], 1, ""))
        }),
    ];
    let titles: Vec<String> =
        stream.directions.iter().map(|way| format!("{} > {}", way.network, way.to_network)).collect();
    let header: Vec<&str> = std::iter::once("").chain(titles.iter().map(String::as_str)).collect();
    let rows: Vec<Vec<String>> = cells
        .iter()
        .map(|(name, cell)| {
            std::iter::once((*name).to_owned()).chain(stream.directions.iter().map(cell)).collect()
        })
        .collect();
    text + &table(&header, &rows)
}

/// The flows.
pub(super) fn flows(flows: &[FlowView]) -> String {
    if flows.is_empty() {
        return "no flows\n".to_owned();
    }
    let header = [
        "datapath",
        "kind",
        "learned source (UTC)",
        "arrives at",
        "leaves from",
        "goes to",
        "DSCP",
        "kernel",
        "userspace",
        "lost",
        "jitter ms",
        "",
    ];
    // One table, so that columns stand under each other, with a line for each call in between.
    let text = table(&header, &flows.iter().map(flow_row).collect::<Vec<_>>());
    let mut lines = text.lines();
    let mut grouped = String::new();
    let _ = writeln!(grouped, "{}", lines.next().unwrap_or_default());
    let mut call = None;
    for (line, flow) in lines.zip(flows) {
        if call != Some(&flow.call_id) {
            let name = flow.call_id.as_deref().unwrap_or("of a call that has just ended");
            let _ = writeln!(grouped, "call {name}");
            call = Some(&flow.call_id);
        }
        let _ = writeln!(grouped, "{line}");
    }
    let all: Vec<RefusalView> = flows.iter().flat_map(|flow| flow.refusals.iter().cloned()).collect();
    if !all.is_empty() {
        let _ = writeln!(grouped, "\nrefused sources");
        grouped.push_str(&refusals(&all));
    }
    let further: u64 = flows.iter().map(|flow| flow.refused_further).sum();
    if further > 0 {
        let _ = writeln!(grouped, "and {further} packets from further sources");
    }
    grouped
}

fn flow_row(flow: &FlowView) -> Vec<String> {
    let learned = match (&flow.learned, flow.learned_unix_ms) {
        (Some(source), Some(at)) => format!("{source} at {}", time_of_day(at)),
        _ => "-".to_owned(),
    };
    let mut notes: Vec<String> = flow.reason.iter().cloned().collect();
    if let Some(destination) = &flow.rtcp_destination {
        notes.push(format!("RTCP to {destination}"));
    }
    notes.extend(flow.srtp.clone());
    if flow.srtp_authentication > 0 {
        notes.push(format!("{} with a wrong SRTP tag dropped", flow.srtp_authentication));
    }
    if flow.srtp_replay > 0 {
        notes.push(format!("{} repeated SRTP packets dropped", flow.srtp_replay));
    }
    if flow.wrong_source > 0 {
        notes.push(format!("{} from elsewhere dropped", flow.wrong_source));
    }
    if flow.refused > 0 {
        notes.push(format!("{} refused while learning", flow.refused));
    }
    vec![
        flow.datapath.clone(),
        flow.kind.clone(),
        learned,
        flow.local.clone(),
        flow.out.clone(),
        flow.destination.clone().unwrap_or_else(|| "-".to_owned()),
        format!(
            "{}>{}",
            flow.dscp_in,
            flow.dscp_out.map_or_else(|| "keep".to_owned(), |dscp| dscp.to_string())
        ),
        flow.kernel_packets.to_string(),
        flow.userspace_packets.to_string(),
        if flow.expected == 0 { "-".to_owned() } else { flow.lost.to_string() },
        if flow.expected == 0 { "-".to_owned() } else { format!("{:.2}", flow.jitter_ms) },
        notes.join("; "),
    ]
}

/// The phones, each with a line for what it did and for its registrations.
pub(super) fn phones(phones: &[PhoneView]) -> String {
    if phones.is_empty() {
        return "no phone was heard of\n".to_owned();
    }
    let mut rows = Vec::new();
    for phone in phones {
        let activity = &phone.activity;
        let dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        let mut name = vec![dash(&activity.address), dash(&activity.hardware_address)];
        let kind =
            activity.vendor_class.as_ref().or(activity.user_agent.as_ref()).or_else(|| {
                phone.registrations.iter().find_map(|registration| registration.user_agent.as_ref())
            });
        name.push(kind.cloned().unwrap_or_else(|| "-".to_owned()));
        let stages = activity.stages.iter().map(|stage| {
            [
                stage.stage.replace('_', " "),
                time_of_day(stage.at_unix_ms),
                stage.count.to_string(),
                stage.detail.clone(),
            ]
        });
        let registrations = phone.registrations.iter().map(|registration| {
            [
                "registered".to_owned(),
                "-".to_owned(),
                "-".to_owned(),
                format!("{} for {} s", registration.address_of_record, registration.expires_seconds),
            ]
        });
        for cells in stages.chain(registrations) {
            rows.push([std::mem::replace(&mut name, vec![String::new(); 3]), cells.to_vec()].concat());
        }
    }
    table(&["address", "hardware", "kind", "what", "last (UTC)", "times", ""], &rows)
}

/// Lines of logs.
pub(super) fn syslog(lines: &[SyslogView]) -> String {
    let mut text = String::new();
    for line in lines {
        let speaker = line.application.as_ref().map(|name| format!("{name}: ")).unwrap_or_default();
        let (time, phone, severity) = (time_of_day(line.received_unix_ms), &line.phone, &line.severity);
        let _ = writeln!(text, "{time} {phone} {severity} {speaker}{}", line.message);
    }
    text
}

/// Hours, minutes, seconds and milliseconds of a time in milliseconds since 1970, in UTC.
fn time_of_day(unix_ms: u64) -> String {
    let (seconds, milliseconds) = (unix_ms / 1000 % 86_400, unix_ms % 1000);
    format!("{:02}:{:02}:{:02}.{milliseconds:03}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_lines_end_without_blanks() {
        let rows = vec![vec!["a".to_owned(), "bbbb".to_owned()], vec!["ccc".to_owned(), String::new()]];
        assert_eq!(table(&["x", "y"], &rows), "x    y\na    bbbb\nccc\n");
    }

    #[test]
    fn a_phone_has_a_line_for_each_stage_and_registration() {
        let phone: PhoneView = serde_json::from_str(
            r#"{"hardware_address": "00:04:f2:01:02:03", "address": "10.61.0.11", "vendor_class": "SIP200",
                "user_agent": null, "first_seen_unix_ms": 1, "last_seen_unix_ms": 2,
                "stages": [
                    {"stage": "inform_answered", "count": 1, "at_unix_ms": 1000, "detail": "inform"},
                    {"stage": "time_asked", "count": 3, "at_unix_ms": 2000, "detail": "answered, version 4"}],
                "registrations": [
                    {"address_of_record": "1001@example.com", "contact": "sip:1001@10.61.0.11",
                     "expires_seconds": 60, "registered_seconds": 5, "user_agent": null}]}"#,
        )
        .unwrap();
        assert_eq!(
            phones(&[phone]),
            "address     hardware           kind    what             last (UTC)    times\n\
             10.61.0.11  00:04:f2:01:02:03  SIP200  inform answered  00:00:01.000  1      inform\n\
             \x20                                      time asked       00:00:02.000  3      answered, version 4\n\
             \x20                                      registered       -             -      1001@example.com for 60 s\n"
        );
        assert_eq!(phones(&[]), "no phone was heard of\n");
    }

    #[test]
    fn a_line_of_a_log_tells_when_who_how_bad_and_what() {
        let line: SyslogView = serde_json::from_str(
            r#"{"phone": "10.61.0.11", "received_unix_ms": 1000, "severity": "err", "facility": null, "sent": null,
                "host": null, "application": "phone", "data": null, "message": "no time"}"#,
        )
        .unwrap();
        assert_eq!(syslog(&[line]), "00:00:01.000 10.61.0.11 err phone: no time\n");
    }

    #[test]
    fn a_time_of_day_is_in_utc() {
        assert_eq!(time_of_day(1_000_000_000_123), "01:46:40.123");
    }
}
