//! A copy that is read while it is being written: one fetch serves many phones, each at its own pace.

use std::{io, ops::Range, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use tokio::{sync::watch, task::spawn_blocking};
use tracing::debug;

use super::{
    body::{Stream, next},
    cache::{CHUNK, Cache, Copy, Draft, chunks},
};

/// How far the writing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// So many chunks can be read.
    Chunks(u64),
    /// There will be no more.
    Failed,
}

/// A copy and how much of it can be read.
#[derive(Debug, Clone)]
pub(super) struct Growing {
    pub(super) copy: Arc<Copy>,
    pub(super) progress: watch::Receiver<Progress>,
}

impl Growing {
    /// One that is whole.
    pub(super) fn whole(copy: Copy) -> Self {
        let (_, progress) = watch::channel(Progress::Chunks(chunks(copy.length)));
        Self { copy: Arc::new(copy), progress }
    }

    /// One that [`fetch`] fills.
    pub(super) fn of(draft: &Draft, length: u64) -> io::Result<(Self, watch::Sender<Progress>)> {
        let (sender, progress) = watch::channel(Progress::Chunks(0));
        Ok((Self { copy: Arc::new(draft.reader(length)?), progress }, sender))
    }

    /// A range of its bytes, as they become readable.
    pub(super) fn content(&self, cache: &Arc<Cache>, range: Range<u64>) -> Stream {
        let (copy, progress, cache) = (Arc::clone(&self.copy), self.progress.clone(), Arc::clone(cache));
        let state = Some((copy, progress, cache, range));
        let frames = stream::unfold(state, |state| async move {
            let (copy, mut progress, cache, range) = state?;
            if range.is_empty() {
                return None;
            }
            let number = range.start / CHUNK;
            let readable = |progress: &Progress| match progress {
                Progress::Chunks(chunks) => *chunks > number,
                Progress::Failed => true,
            };
            // A sender that is gone has said its last word.
            let _ = progress.wait_for(readable).await;
            let reached = *progress.borrow();
            if reached == Progress::Failed || !readable(&reached) {
                let error =
                    io::Error::new(io::ErrorKind::UnexpectedEof, "the server did not send the whole file");
                return Some((Err(error), None));
            }
            let (reader, opener) = (Arc::clone(&copy), Arc::clone(&cache));
            let read = spawn_blocking(move || reader.read(opener.secrets(), number)).await;
            match read.unwrap_or_else(|error| Err(io::Error::other(error))) {
                Ok(chunk) => {
                    let chunk = Bytes::from(chunk);
                    let offset = number * CHUNK;
                    let (from, to) = (range.start - offset, (range.end - offset).min(chunk.len() as u64));
                    let (Ok(from), Ok(to)) = (usize::try_from(from), usize::try_from(to)) else {
                        return None;
                    };
                    let piece = chunk.slice(from.min(to)..to);
                    let rest = range.start + piece.len() as u64..range.end;
                    Some((Ok(Frame::data(piece)), Some((copy, progress, cache, rest))))
                }
                Err(error) => Some((Err(error), None)),
            }
        });
        BodyExt::boxed_unsync(StreamBody::new(frames))
    }
}

/// Writes a response's body of known length to a draft, as fast as it comes. A server that ends too early, or a disk
/// that fails, leaves no copy, and the readers learn of it.
pub(super) async fn fetch(
    cache: Arc<Cache>,
    mut body: Incoming,
    draft: Draft,
    length: u64,
    idle: Duration,
    progress: watch::Sender<Progress>,
) {
    let mut state = Some(draft);
    let result = loop {
        let Some(mut draft) = state.take() else { break Ok(()) };
        let piece = match next(&mut body, idle).await {
            None => None,
            Some(Ok(piece)) => Some(piece),
            Some(Err(error)) => break Err(error),
        };
        let written = spawn_blocking(move || match piece {
            Some(piece) => draft.write(&piece).map(|chunks| (Some(draft), chunks)),
            None => draft.finish(Some(length)).map(|()| (None, chunks(length))),
        })
        .await;
        match written.unwrap_or_else(|error| Err(io::Error::other(error))) {
            Ok((draft, chunks)) => {
                progress.send_replace(Progress::Chunks(chunks));
                state = draft;
            }
            Err(error) => {
                cache.failed(&error);
                break Err(error);
            }
        }
    };
    if let Err(error) = result {
        debug!(%error, "a file could not be fetched whole");
        progress.send_replace(Progress::Failed);
    }
}

/// Passes a response's body of unknown length on and writes it to a draft on the way, as long as that works.
pub(super) fn passing(cache: Arc<Cache>, body: Incoming, draft: Draft, most: u64, idle: Duration) -> Stream {
    let state = Some((body, Some(draft), 0u64, cache));
    let frames = stream::unfold(state, move |state| async move {
        let (mut body, draft, before, cache) = state?;
        match next(&mut body, idle).await {
            Some(Ok(piece)) => {
                let total = before + piece.len() as u64;
                let draft = match draft.filter(|_| total <= most) {
                    None => None,
                    Some(mut draft) => {
                        let copied = piece.clone();
                        let written = spawn_blocking(move || draft.write(&copied).map(|_| draft)).await;
                        written
                            .unwrap_or_else(|error| Err(io::Error::other(error)))
                            .map_err(|error| cache.failed(&error))
                            .ok()
                    }
                };
                Some((Ok(Frame::data(piece)), Some((body, draft, total, cache))))
            }
            Some(Err(error)) => Some((Err(error), None)),
            None => {
                if let Some(draft) = draft
                    && let Ok(Err(error)) = spawn_blocking(move || draft.finish(None)).await
                {
                    cache.failed(&error);
                }
                None
            }
        }
    });
    BodyExt::boxed_unsync(StreamBody::new(frames))
}
