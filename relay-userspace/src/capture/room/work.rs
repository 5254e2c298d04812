//! What one capture's task does: copies from the tap into the recording, and the recording into the file, on a thread
//! that may block.

use std::{
    io,
    sync::{Arc, atomic::Ordering},
};

use tokio::task::spawn_blocking;

use super::{
    super::{
        file::Writer,
        recording::{End, Recording},
    },
    Progress,
};
use crate::datapath::{PacketCopy, Tapped, unix_ns};

/// What a capture's task works on.
pub(super) struct Work {
    pub(super) tapped: Tapped,
    pub(super) recording: Recording,
    /// None after a failure.
    pub(super) writer: Option<Writer>,
    pub(super) progress: Arc<Progress>,
}

impl Work {
    pub(super) async fn write(&mut self, copies: &[PacketCopy]) -> Result<(), End> {
        let mut bytes = Vec::new();
        let mut full = Ok(());
        for copy in copies {
            match self.recording.packet(copy) {
                Ok(packet) => bytes.extend(packet),
                Err(end) => {
                    full = Err(end);
                    break;
                }
            }
        }
        self.append(bytes).await?;
        self.progress.packets.store(self.recording.packets(), Ordering::Relaxed);
        self.progress.dropped.store(self.tapped.dropped().iter().sum(), Ordering::Relaxed);
        full
    }

    pub(super) async fn append(&mut self, bytes: Vec<u8>) -> Result<(), End> {
        let length = bytes.len() as u64;
        self.with_writer(move |writer| writer.write(&bytes)).await?;
        self.progress.bytes.fetch_add(length, Ordering::Relaxed);
        Ok(())
    }

    async fn with_writer(
        &mut self,
        work: impl FnOnce(&mut Writer) -> io::Result<()> + Send + 'static,
    ) -> Result<(), End> {
        let Some(mut writer) = self.writer.take() else {
            return Err(End::Failed("an earlier write failed".to_owned()));
        };
        let done = spawn_blocking(move || work(&mut writer).map(|()| writer)).await;
        let writer = done.map_err(|error| End::Failed(error.to_string()))?;
        self.writer = Some(writer.map_err(|error| End::Failed(error.to_string()))?);
        Ok(())
    }

    /// Closes the tap, writes what waited in it and the statistics; says why the capture ended after all.
    pub(super) async fn finish(&mut self, end: End) -> End {
        let waiting = self.tapped.close();
        let mut end = end;
        if !matches!(end, End::Size | End::Failed(_))
            && let Err(other) = self.write(&waiting).await
        {
            end = other;
        }
        if self.writer.is_some() {
            let last = self.recording.finish(unix_ns(), &self.tapped.dropped());
            let written = match self.append(last).await {
                Ok(()) => self.with_writer(Writer::finish).await,
                failed => failed,
            };
            if let Err(failed) = written {
                end = failed;
            }
        }
        end
    }
}
