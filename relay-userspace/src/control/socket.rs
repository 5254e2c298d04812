//! The socket: the daemon's end and the command line's.

use std::{
    convert::Infallible, fs, io, os::unix::fs::PermissionsExt as _, path::Path, sync::Arc, time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
    time::{sleep, timeout},
};
use tracing::{debug, warn};

use super::{Request, Response};

/// Bytes of the longest request.
const REQUEST: u64 = 4096;
/// How long either side waits for the other.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long to wait after a connection could not be accepted.
const ACCEPT_AGAIN: Duration = Duration::from_secs(1);

/// Who answers; the daemon implements it.
pub trait Answers: Send + Sync + 'static {
    /// Answers a request.
    fn answer(&self, request: &Request) -> Response;
}

/// Makes the socket, for root and the daemon's user only. A socket that nobody listens on is replaced.
///
/// # Errors
/// A sentence that names the path, and another daemon if one listens there.
pub fn bind(path: &Path) -> Result<UnixListener, String> {
    let wrong = |what: &str, error: io::Error| {
        format!("control.socket = {:?}: {what}: {error}", path.display().to_string())
    };
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).map_err(|error| wrong("its directory cannot be made", error))?;
    }
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(format!("another daemon answers on {}; stop it, or set control.socket", path.display()));
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(wrong("an old socket is in the way", error));
        }
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(|error| wrong("it cannot be made", error))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))
        .map_err(|error| wrong("its permissions cannot be set", error))?;
    Ok(listener)
}

/// Answers for as long as it is polled. An error in accepting, as when there are no descriptors left, ends
/// nothing: that is when people ask.
pub async fn serve(listener: UnixListener, answers: Arc<dyn Answers>) -> Infallible {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!(%error, "control socket: a connection could not be accepted");
                sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        let answers = Arc::clone(&answers);
        tokio::spawn(async move {
            match timeout(PATIENCE, converse(stream, answers)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => debug!(%error, "control socket"),
                Err(_) => debug!("control socket: no request for {} s", PATIENCE.as_secs()),
            }
        });
    }
}

async fn converse(stream: UnixStream, answers: Arc<dyn Answers>) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut line = String::new();
    BufReader::new(reader.take(REQUEST)).read_line(&mut line).await?;
    let response = match serde_json::from_str::<Request>(&line) {
        Ok(request) => answers.answer(&request),
        Err(error) => Response::Error(format!("not a request: {error}")),
    };
    let mut text = serde_json::to_vec(&response).map_err(io::Error::other)?;
    text.push(b'\n');
    writer.write_all(&text).await
}

/// Asks the daemon behind a socket.
///
/// # Errors
/// A sentence that says whether there is no daemon, no permission, or no sense in what it said.
pub async fn ask(path: &Path, request: &Request) -> Result<Response, String> {
    let place = path.display();
    let stream = UnixStream::connect(path).await.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            format!("no daemon answers on {place}: is it running? (`branchline run --config FILE`; --socket names another path)")
        }
        io::ErrorKind::PermissionDenied => format!("{place} is only for root and the daemon's user"),
        _ => format!("{place}: {error}"),
    })?;
    let exchange = async {
        let (mut reader, mut writer) = stream.into_split();
        let mut text = serde_json::to_vec(request).map_err(io::Error::other)?;
        text.push(b'\n');
        writer.write_all(&text).await?;
        let mut answer = Vec::new();
        reader.read_to_end(&mut answer).await?;
        Ok::<_, io::Error>(answer)
    };
    let answer = timeout(PATIENCE, exchange)
        .await
        .map_err(|_| format!("the daemon on {place} did not answer within {} s", PATIENCE.as_secs()))?
        .map_err(|error| format!("{place}: {error}"))?;
    match serde_json::from_slice(&answer) {
        Ok(Response::Error(error)) => Err(format!("the daemon refused: {error}")),
        Ok(response) => Ok(response),
        Err(error) => Err(format!("the daemon on {place} answered nonsense: {error}")),
    }
}
