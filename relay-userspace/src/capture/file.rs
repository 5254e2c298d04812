//! A capture's file: plain, sealed in chunks, or encrypted to recipients as age does.
//!
//! A sealed file has a random name of its own in its head, then the content in chunks of 64 KiB, each sealed with that
//! name, the chunk's number and whether it is the last as context: chunks can be neither changed, moved nor mixed. A file
//! that ends between two chunks is read up to there: the daemon may have been killed, and it is then that the file is
//! wanted most. A plain file is read in parts of the same size. What is here blocks: it is for threads that may.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Write},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::Path,
    sync::Arc,
};

use age::{Encryptor, stream::StreamWriter, x25519::Recipient};

use crate::store::{SealError, Store};

/// Bytes of content in a chunk.
pub(super) const CHUNK: usize = 64 << 10;
/// What sealing adds: a nonce of 24 bytes and a tag of 16 (XChaCha20-Poly1305).
const SEALED: usize = 40;
/// Begins a sealed file; its last digit is the version of what follows.
const MAGIC: [u8; 8] = *b"BLCAPTU1";
/// Bytes of a file's own name.
const NAME: usize = 16;
const HEAD: usize = MAGIC.len() + NAME;
/// Only the daemon's user.
const PRIVATE: u32 = 0o600;

fn context(name: &[u8; NAME], number: u64, is_last: bool) -> String {
    let end = if is_last { "last" } else { "more" };
    format!("capture:{:032x}:{number}:{end}", u128::from_be_bytes(*name))
}

fn broken(error: &SealError) -> io::Error {
    let what = "it was sealed with another key (secret.key), was changed, or is cut short";
    io::Error::new(io::ErrorKind::InvalidData, format!("{what}: {error}"))
}

/// The seal of a file.
struct Seal {
    store: Arc<Store>,
    name: [u8; NAME],
    number: u64,
}

/// What becomes of the content on its way to the disk.
pub(super) enum Coat {
    /// Nothing.
    Plain,
    /// It is sealed with the appliance's key.
    Sealed(Arc<Store>),
    /// It is encrypted to these, in the age format (age-encryption.org/v1): they alone can open it.
    Age(Vec<Recipient>),
}

/// The disk's side of a file.
struct Ground {
    file: File,
    /// Bytes of the file that are whole: what a failed write leaves beyond is cut off.
    whole: u64,
}

impl Write for Ground {
    /// Writes all of it or nothing: a file that the disk had no room for ends with its last whole part.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write_all(bytes).inspect_err(|_| {
            // What cannot be cut stays, and readers say that the file is cut short.
            let _ = self.file.set_len(self.whole);
        })?;
        self.whole += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// How content becomes a file.
enum Form {
    Plain(Ground),
    /// With the content that waits for its chunk to be full.
    Sealed(Ground, Seal, Vec<u8>),
    Age(StreamWriter<Ground>),
}

/// A file that is being written.
pub(super) struct Writer(Option<Form>);

fn finished() -> io::Error {
    io::Error::other("the file is finished")
}

impl Writer {
    /// Makes a file.
    pub(super) fn create(path: &Path, coat: Coat) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).create_new(true).mode(PRIVATE).open(path)?;
        let mut ground = Ground { file, whole: 0 };
        Ok(Self(Some(match coat {
            Coat::Plain => Form::Plain(ground),
            Coat::Sealed(store) => {
                let seal = Seal { store, name: rand::random(), number: 0 };
                ground.write_all(&[&MAGIC[..], &seal.name].concat())?;
                Form::Sealed(ground, seal, Vec::with_capacity(CHUNK))
            }
            Coat::Age(recipients) => {
                let recipients = recipients.iter().map(|recipient| recipient as &dyn age::Recipient);
                let encryptor = Encryptor::with_recipients(recipients).map_err(io::Error::other)?;
                Form::Age(encryptor.wrap_output(ground)?)
            }
        })))
    }

    /// A file that is there already, such as a device.
    #[cfg(test)]
    pub(super) fn open_for_test(path: &Path) -> Self {
        let file = OpenOptions::new().write(true).open(path).unwrap();
        Self(Some(Form::Plain(Ground { file, whole: 0 })))
    }

    /// Adds content. What makes no full chunk yet is written at once if the file is plain.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self.0.as_mut().ok_or_else(finished)? {
            Form::Plain(ground) => ground.write_all(bytes),
            Form::Age(age) => age.write_all(bytes),
            Form::Sealed(ground, seal, waiting) => {
                waiting.extend_from_slice(bytes);
                // One byte more than a chunk: it is not the last.
                let mut sealed = Vec::new();
                while waiting.len() > CHUNK {
                    let rest = waiting.split_off(CHUNK);
                    sealed.extend(seal.seal(waiting, false)?);
                    *waiting = rest;
                }
                ground.write_all(&sealed)
            }
        }
    }

    /// Ends the file.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        let ground = match self.0.take().ok_or_else(finished)? {
            Form::Plain(ground) => ground,
            Form::Age(age) => age.finish()?,
            Form::Sealed(mut ground, mut seal, waiting) => {
                ground.write_all(&seal.seal(&waiting, true)?)?;
                ground
            }
        };
        ground.file.sync_all()
    }
}

impl Seal {
    fn seal(&mut self, plain: &[u8], is_last: bool) -> io::Result<Vec<u8>> {
        let context = context(&self.name, self.number, is_last);
        self.number += 1;
        self.store.secrets().seal(&context, plain).map_err(|error| broken(&error))
    }
}

/// One part of a file's content: its bytes, and whether there is more.
pub(super) fn read(path: &Path, sealed: Option<&Store>, number: u64) -> io::Result<(Vec<u8>, bool)> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let Some(store) = sealed else {
        let begin = number.saturating_mul(CHUNK as u64);
        let size = length.saturating_sub(begin).min(CHUNK as u64) as usize;
        let mut bytes = vec![0; size];
        file.read_exact_at(&mut bytes, begin)?;
        return Ok((bytes, begin + (size as u64) < length));
    };
    let mut head = [0; HEAD];
    file.read_exact(&mut head)?;
    let (magic, name) = head.split_at(MAGIC.len());
    let (true, Ok(name)) = (magic == MAGIC, name.try_into()) else {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is no sealed capture of this version"));
    };
    let whole = (CHUNK + SEALED) as u64;
    let begin = number.saturating_mul(whole).saturating_add(HEAD as u64);
    let rest = length.saturating_sub(begin);
    let mut bytes = vec![0; rest.min(whole) as usize];
    file.read_exact_at(&mut bytes, begin)?;
    let more = rest > whole;
    let open = |is_last| store.secrets().open_sealed(&context(&name, number, is_last), &bytes);
    // A file whose writing was interrupted, or that is being written, ends with a chunk that is not the last.
    let opened = match open(!more) {
        Err(_) if rest == whole => open(false),
        result => result,
    };
    let mut opened = opened.map_err(|error| broken(&error))?;
    Ok((std::mem::take(&mut *opened), more))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::store::tests_support::Directory;

    fn whole(path: &Path, store: Option<&Store>) -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        for number in 0.. {
            let (bytes, more) = read(path, store, number)?;
            content.extend(bytes);
            if !more {
                break;
            }
        }
        Ok(content)
    }

    #[test]
    fn what_was_written_is_read_again_plain_or_sealed() {
        let directory = Directory::new("capture-file");
        let store = Arc::new(Store::open(&directory.path().join("state")).unwrap());
        for length in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 5] {
            let content: Vec<u8> = (0..length).map(|index| (index % 251) as u8).collect();
            for sealed in [None, Some(&store)] {
                let path = directory.path().join(format!("{length}-{}", sealed.is_some()));
                let coat = sealed.cloned().map_or(Coat::Plain, Coat::Sealed);
                let mut writer = Writer::create(&path, coat).unwrap();
                for part in content.chunks(1000) {
                    writer.write(part).unwrap();
                }
                writer.finish().unwrap();
                let read = whole(&path, sealed.map(|store| &**store)).unwrap();
                assert!(read == content, "{length}, sealed: {}", sealed.is_some());
                let raw = fs::read(&path).unwrap();
                let chunks = length.div_ceil(CHUNK).max(1);
                let expected = if sealed.is_some() { HEAD + length + chunks * SEALED } else { length };
                assert_eq!(raw.len(), expected);
                if sealed.is_some() && length > 1000 {
                    let plain = &content[..64];
                    assert!(!raw.windows(64).any(|window| window == plain), "{length}: it can be read");
                }
            }
        }
    }

    #[test]
    fn who_has_the_key_reads_a_file_that_is_encrypted_to_it_and_nobody_else_does() {
        let directory = Directory::new("capture-age");
        let (identity, other) = (age::x25519::Identity::generate(), age::x25519::Identity::generate());
        for length in [0, 1, CHUNK, 3 * CHUNK + 5] {
            let content: Vec<u8> = (0..length).map(|index| (index % 251) as u8).collect();
            let path = directory.path().join(length.to_string());
            let mut writer = Writer::create(&path, Coat::Age(vec![identity.to_public()])).unwrap();
            for part in content.chunks(1000) {
                writer.write(part).unwrap();
            }
            writer.finish().unwrap();
            let raw = fs::read(&path).unwrap();
            assert_eq!(whole(&path, None).unwrap(), raw, "taken away as it is");
            assert_eq!(age::decrypt(&identity, &raw).unwrap(), content, "{length}");
            assert!(age::decrypt(&other, &raw).is_err());
            let cut = &raw[..raw.len() - 1];
            assert!(age::decrypt(&identity, cut).is_err(), "{length}: cut short");
        }
    }

    #[test]
    fn a_sealed_file_that_was_changed_or_cut_is_refused() {
        let directory = Directory::new("capture-changed");
        let store = Arc::new(Store::open(&directory.path().join("state")).unwrap());
        let path = directory.path().join("file");
        let mut writer = Writer::create(&path, Coat::Sealed(Arc::clone(&store))).unwrap();
        writer.write(&vec![7; 2 * CHUNK + 10]).unwrap();
        writer.finish().unwrap();
        let good = fs::read(&path).unwrap();
        let chunk = CHUNK + SEALED;
        let swapped =
            [&good[..HEAD], &good[HEAD + chunk..HEAD + 2 * chunk], &good[HEAD..HEAD + chunk]].concat();
        let mut changed = good.clone();
        changed[HEAD + 100] ^= 1;
        for (description, bytes) in [
            ("changed", &changed[..]),
            ("chunks swapped", &swapped[..]),
            ("cut within a chunk", &good[..good.len() - 1]),
            ("no capture", b"hello"),
        ] {
            fs::write(&path, bytes).unwrap();
            assert!(whole(&path, Some(&store)).is_err(), "{description}");
        }
        fs::write(&path, &good[..HEAD + chunk]).unwrap();
        assert_eq!(
            whole(&path, Some(&store)).unwrap().len(),
            CHUNK,
            "interrupted: what is whole can be read"
        );
    }
}
