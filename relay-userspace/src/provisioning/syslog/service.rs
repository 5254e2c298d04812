//! The sockets of the receiver, and the thread that writes its files.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::{
        Arc,
        mpsc::{SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use tokio::net::UdpSocket;
use tracing::{info, warn};

use super::{Book, Files, SyslogView, message::Line};
use crate::{
    config,
    metrics::{ServiceMetrics, names},
    provisioning::{
        BindError, Inventory, Stage, Who,
        rate::{Admission, Allowance, Rates},
        sockets::{self, Sharing},
    },
};

/// Bytes of a datagram that are read: more than what is kept of any line.
const DATAGRAM: usize = 8192;
/// Lines that may wait for the disk.
const WAITING: usize = 1024;
/// A phone that starts writes a few hundred lines at once.
const EACH: Allowance = Allowance { burst: 400, interval: Duration::from_millis(20) };
/// All phones together.
const ALL: Allowance = Allowance { burst: 4000, interval: Duration::from_micros(500) };
/// Phones that are told apart.
const ASKERS: usize = 2000;

/// The writer of the files: hands lines to a thread of its own and never waits for it.
#[derive(Debug, Clone)]
pub struct Keeper {
    book: Arc<Book>,
    queue: SyncSender<(SystemTime, IpAddr, SyslogView)>,
}

impl Keeper {
    /// Opens the directory and starts the thread, which ends with the last clone of this.
    ///
    /// # Errors
    /// The directory cannot be made, or there is no thread to be had.
    pub fn start(directory: &Path, settings: &config::Syslog, metrics: ServiceMetrics) -> io::Result<Self> {
        let mut files = Files::open(directory, settings)?;
        let (queue, lines) = sync_channel::<(SystemTime, IpAddr, SyslogView)>(WAITING);
        let place = directory.display().to_string();
        thread::Builder::new().name("syslog-files".to_owned()).spawn(move || {
            // The log says once that it began to fail, and once that it works again.
            let mut failing = false;
            while let Ok((now, phone, line)) = lines.recv() {
                match files.append(now, phone, &line) {
                    Ok(()) => {
                        if std::mem::take(&mut failing) {
                            info!(directory = place, "phones' logs are written again");
                        }
                    }
                    Err(error) => {
                        metrics.syslog_dropped.with_label_values(&[names::syslog::NOT_WRITTEN]).inc();
                        if !std::mem::replace(&mut failing, true) {
                            warn!(%error, directory = place, "phones' logs cannot be written; the last lines are in memory");
                        }
                    }
                }
            }
        })?;
        Ok(Self { book: Arc::default(), queue })
    }

    /// The last lines.
    #[must_use]
    pub fn book(&self) -> Arc<Book> {
        Arc::clone(&self.book)
    }
}

/// The receiver on one network, bound and not yet running.
#[derive(Debug)]
pub struct Service {
    socket: UdpSocket,
    keeper: Keeper,
}

impl Service {
    /// Binds the port on an interface's address.
    ///
    /// # Errors
    /// The port is not to be had there.
    pub fn bind(interface: &str, address: IpAddr, port: u16, keeper: Keeper) -> Result<Self, BindError> {
        let socket = sockets::bind(interface, SocketAddr::new(address, port), Sharing::Alone)?;
        Ok(Self { socket, keeper })
    }

    /// Receives for as long as it is polled.
    pub async fn run(self, phones: Arc<Inventory>, metrics: ServiceMetrics) {
        let Self { socket, keeper } = self;
        let mut rates = Rates::new(EACH, ALL, ASKERS);
        let mut buffer = vec![0; DATAGRAM];
        sockets::serve(&socket, &mut buffer, |source, datagram| {
            let phone = source.ip();
            if rates.admit(Instant::now(), phone) != Admission::Admitted {
                metrics.syslog_dropped.with_label_values(&[names::syslog::TOO_FAST]).inc();
                return None;
            }
            let now = SystemTime::now();
            let line = SyslogView::new(now, phone, Line::read(datagram));
            metrics.syslog_messages.with_label_values(&[&line.severity]).inc();
            phones.note(now, Who::Address(phone), Stage::LogReceived, &line.message);
            if keeper.queue.try_send((now, phone, line.clone())).is_err() {
                metrics.syslog_dropped.with_label_values(&[names::syslog::QUEUE_FULL]).inc();
            }
            keeper.book.add(phone, line);
            None
        })
        .await;
    }
}
