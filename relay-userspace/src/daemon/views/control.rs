//! What the command line asks for and orders, by the control socket.

use std::time::{Duration, Instant};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use tracing::info;
use zeroize::Zeroizing;

use super::Views;
use crate::{
    capture::{CaptureError, Keys, Part, Sealing, Wanted},
    config::LogWord,
    control::{Answers, CapturePartView, CaptureStartedView, EntryView, Request, Response},
    daemon::certificates::certificate_view,
    log::Topic,
    store::{Entry, StoreError},
    tls::Identity,
};

impl Views {
    /// The last lines of the phones' logs.
    fn syslog(&self, phone: Option<&str>, lines: usize) -> Response {
        let Some(logs) = &self.logs else {
            return Response::Error(
                "phones' logs are not received: set syslog.enabled = true in the configuration".to_owned(),
            );
        };
        match phone.map(str::parse).transpose() {
            Ok(phone) => Response::Syslog(logs.last(phone, lines)),
            Err(_) => Response::Error(format!("{phone:?} is not an IP address")),
        }
    }

    /// Sets a topic's level until the restart.
    fn set_log_topic(&self, topic: &str, level: &str) -> Result<(), String> {
        let known = Topic::parse(topic).ok_or_else(|| {
            let names = Topic::ALL.map(Topic::as_label).join(", ");
            format!("{topic:?} is no topic; there are {names}")
        })?;
        let word = match level {
            "default" => None,
            level => Some(LogWord::parse(level).ok_or_else(|| {
                let words = LogWord::ALL.map(LogWord::as_label).join(", ");
                format!("{level:?} is no level; there are {words}, and default")
            })?),
        };
        self.reloader.log().set_topic(known, word)?;
        info!(topic, level, "a topic's log level is set until the restart");
        Ok(())
    }
}

impl Answers for Views {
    fn answer(&self, request: &Request) -> Response {
        match request {
            Request::Status => Response::Status(Box::new(self.status())),
            Request::Calls { call_id: Some(call_id), .. } => Response::Calls(self.calls_named(call_id)),
            Request::Calls { ended, call_id: None } => Response::Calls(self.calls(*ended)),
            Request::Flows { call_id } => Response::Flows(self.flows(call_id.as_deref())),
            Request::Restart => match self.reloader.can_start() {
                Ok(()) => {
                    self.core.restart.notify_one();
                    Response::Done
                }
                Err(error) => {
                    Response::Error(format!("it goes on as it is, since it could not start: {error}"))
                }
            },
            Request::Reload => match self.reloader.reload() {
                Ok(done) => Response::Reloaded(done),
                Err(error) => Response::Error(error.to_string()),
            },
            Request::SetupLink => Response::SetupLink(self.setup.issue(Instant::now())),
            Request::Phones => Response::Phones(self.phones()),
            Request::Syslog { phone, lines } => self.syslog(phone.as_deref(), *lines),
            Request::Log => Response::Log(self.reloader.log().view()),
            Request::SetLogTopic { topic, level } => match self.set_log_topic(topic, level) {
                Ok(()) => Response::Done,
                Err(why) => Response::Error(why),
            },
            Request::Denials => Response::Denials(self.denials()),
            Request::Deny { prefix, minutes } => {
                let (now, why) = (Instant::now(), "by command".to_owned());
                let lasts = minutes.map(|minutes| Duration::from_secs(minutes.saturating_mul(60)));
                let result = match self.core.engine.why_userspace() {
                    None => self.core.protection().deny(now, *prefix, lasts, why),
                    Some(reason) => Err(format!("there is no kernel datapath to deny anybody: {reason}")),
                };
                self.core.protect();
                done(result)
            }
            Request::Allow { prefix } => {
                let result = self.core.protection().allow(*prefix);
                self.core.protect();
                done(result)
            }
            Request::Captures => or_error(self.core.captures.list(), Response::Captures),
            Request::StartCapture { target, recipients, with_srtp_keys, seconds, mib, encrypt } => {
                let sealing = encrypt.map(|wanted| if wanted { Sealing::Sealed } else { Sealing::Plain });
                let wanted = Wanted {
                    target: target.clone(),
                    recipients: recipients.clone(),
                    keys: if *with_srtp_keys { Keys::Kept } else { Keys::Masked },
                    seconds: *seconds,
                    mib: *mib,
                    sealing,
                };
                or_error(self.core.start_capture(&wanted), |name| {
                    Response::CaptureStarted(CaptureStartedView { name })
                })
            }
            Request::StopCapture { name } => or_error(self.core.captures.stop(name), |()| Response::Done),
            Request::RemoveCapture { name } => or_error(self.core.captures.remove(name), |()| Response::Done),
            Request::CapturePart { name, number } => {
                or_error(self.core.captures.part(name, *number), |Part { content, more }| {
                    Response::CapturePart(CapturePartView { content: BASE64_STANDARD.encode(content), more })
                })
            }
            Request::Traces { last } => Response::Traces(self.core.traces.room.list(*last)),
            Request::Trace { call_id, from } => match self.core.traces.room.part(call_id, *from) {
                Some(part) => Response::Trace(Box::new(part)),
                None => Response::Error(
                    "there is no trace of this Call-ID, or it was let go of; `branchline trace` lists them"
                        .to_owned(),
                ),
            },
            Request::Certificates => answered(self.core.certificates.list(), |list| {
                Response::Certificates(list.iter().map(certificate_view).collect())
            }),
            Request::Authority => {
                self.kept.identity().and_then(Identity::authority).map_or_else(
                    || {
                        let why = "the certificate is a configured one (tls.certificate): who has signed it knows the authority";
                        Response::Error(why.to_owned())
                    },
                    Response::Authority,
                )
            }
            Request::TrustCertificate { fingerprint, by } => {
                let done = self.core.certificates.trust(fingerprint, by);
                self.core.probe_soon();
                found(done, || {
                    format!("no certificate with fingerprint {fingerprint} was met, or several begin so")
                })
            }
            Request::ForgetCertificate { fingerprint } => {
                found(self.core.certificates.forget(fingerprint), || {
                    format!("no certificate with fingerprint {fingerprint} was met, or several begin so")
                })
            }
            Request::Entries => answered(self.core.store.entries(), |entries| {
                Response::Entries(entries.iter().map(entry_view).collect())
            }),
            Request::PutEntry { registration_id, user, password, aliases } => {
                let entry = Entry {
                    registration_id: registration_id.clone(),
                    user: user.clone(),
                    password: Zeroizing::new(password.clone()),
                    digests: Vec::new(),
                    aliases: aliases.clone(),
                };
                match entry.check() {
                    Ok(()) => answered(self.core.put_entry(&entry), |()| Response::Done),
                    Err(why) => Response::Error(why),
                }
            }
            Request::RemoveEntry { registration_id } => {
                found(self.core.remove_entry(registration_id), || {
                    format!("there is no entry for {registration_id:?}")
                })
            }
        }
    }
}

fn done(result: Result<(), String>) -> Response {
    result.map_or_else(Response::Error, |()| Response::Done)
}

fn or_error<T>(result: Result<T, CaptureError>, answer: impl FnOnce(T) -> Response) -> Response {
    result.map_or_else(|error| Response::Error(error.to_string()), answer)
}

fn answered<T>(result: Result<T, StoreError>, answer: impl FnOnce(T) -> Response) -> Response {
    match result {
        Ok(value) => answer(value),
        Err(error) => Response::Error(error.to_string()),
    }
}

fn found(result: Result<bool, StoreError>, why_not: impl FnOnce() -> String) -> Response {
    answered(result, |found| if found { Response::Done } else { Response::Error(why_not()) })
}

fn entry_view(entry: &Entry) -> EntryView {
    EntryView {
        registration_id: entry.registration_id.clone(),
        user: entry.user.clone(),
        aliases: entry.aliases.clone(),
        realms: entry.realms(),
        password_kept: !entry.password.is_empty(),
    }
}
