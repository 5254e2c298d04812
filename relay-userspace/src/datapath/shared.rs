//! Arrays of records that another writes or reads at the same time: the kernel programs through their
//! maps, which this maps into the process, or only this process, on its heap.
//!
//! All of the datapath's raw memory access is in this file. Invariant: an index is checked before memory
//! is touched, and no reference into the memory is ever handed out, only copies of records.
#![expect(unsafe_code, reason = "memory that the kernel writes can only be reached by raw pointers")]

use std::{
    cell::UnsafeCell,
    io,
    marker::PhantomData,
    os::fd::{AsRawFd, BorrowedFd},
    ptr::{self, NonNull},
    sync::atomic::{AtomicU64, Ordering, fence},
};

use tokio::io::unix::AsyncFd;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes};

/// Records that may be copied in and out of shared memory: any bytes are a valid value.
pub(super) trait Record: FromBytes + IntoBytes + Immutable + Copy {}
impl<T: FromBytes + IntoBytes + Immutable + Copy> Record for T {}

/// Where the records are.
enum Memory<T> {
    /// On this process's heap.
    Heap(Box<[UnsafeCell<T>]>),
    /// In a BPF array map; the bytes that are mapped.
    Mapped(usize),
}

/// An array of records.
pub(super) struct SharedArray<T> {
    base: NonNull<T>,
    length: u32,
    memory: Memory<T>,
    records: PhantomData<T>,
}

// SAFETY: the memory belongs to the array for as long as it lives, and is reached only by the methods
// below, which copy whole records of plain bytes.
unsafe impl<T: Record + Send> Send for SharedArray<T> {}
// SAFETY: as above. Two writers of one record can mix its bytes, which are valid whatever they are; each
// table's rule for who writes when is in `relay_ebpf::tables`.
unsafe impl<T: Record + Send> Sync for SharedArray<T> {}

impl<T: Record> SharedArray<T> {
    /// An array of zeros on the heap.
    pub(super) fn on_heap(length: u32) -> Self {
        let mut records: Box<[UnsafeCell<T>]> =
            (0..length).map(|_| UnsafeCell::new(<T as FromZeros>::new_zeroed())).collect();
        let base = NonNull::from(&mut *records).cast();
        Self { base, length, memory: Memory::Heap(records), records: PhantomData }
    }

    /// Maps the values of a BPF array map, created with `BPF_F_MMAPABLE`, whose values are of type `T`.
    ///
    /// # Errors
    /// That of `mmap`.
    pub(super) fn of_map(map: BorrowedFd<'_>, length: u32) -> io::Result<Self> {
        // The kernel lays values out at multiples of eight bytes (`linux/kernel/bpf/arraymap.c`).
        const { assert!(size_of::<T>().is_multiple_of(8), "a record of a mapped array is padded to eight bytes") };
        let bytes = size_of::<T>() * length as usize;
        // SAFETY: a fresh mapping at an address of the kernel's choice touches no other memory.
        let base = unsafe {
            libc::mmap(
                ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                map.as_raw_fd(),
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).ok_or_else(|| io::Error::other("mmap gave address 0"))?;
        Ok(Self { base, length, memory: Memory::Mapped(bytes), records: PhantomData })
    }

    /// How many records there are.
    pub(super) fn length(&self) -> u32 {
        self.length
    }

    fn at(&self, index: u32) -> Option<NonNull<T>> {
        // SAFETY: the index is within the array.
        (index < self.length).then(|| unsafe { self.base.add(index as usize) })
    }

    /// A copy of a record; the writer may be half way through changing it.
    pub(super) fn read(&self, index: u32) -> T {
        match self.at(index) {
            // SAFETY: within the array and aligned; any bytes are a valid record.
            Some(record) => unsafe { ptr::read_volatile(record.as_ptr()) },
            None => T::new_zeroed(),
        }
    }

    /// Writes a record that nobody else writes, and that nobody reads or all readers read field by field.
    pub(super) fn write(&self, index: u32, record: T) {
        if let Some(place) = self.at(index) {
            // SAFETY: within the array and aligned.
            unsafe { ptr::write_volatile(place.as_ptr(), record) };
        }
    }

    /// Publishes: what was written before is visible to whoever sees this word. `word` counts words of
    /// eight bytes within the record.
    pub(super) fn store_word(&self, index: u32, word: usize, value: u64) {
        let Some(record) = self.at(index) else { return };
        if (word + 1) * size_of::<u64>() > size_of::<T>() || align_of::<T>() < align_of::<u64>() {
            return;
        }
        fence(Ordering::Release);
        // SAFETY: within the record, and aligned as just checked. Others access this word only whole.
        unsafe { AtomicU64::from_ptr(record.as_ptr().cast::<u64>().add(word)) }
            .store(value, Ordering::Release);
    }

    /// Adds to a word of eight bytes within a record, whoever else adds to it at the same time.
    pub(super) fn add_to_word(&self, index: u32, word: usize, value: u64) {
        let Some(record) = self.at(index) else { return };
        if (word + 1) * size_of::<u64>() > size_of::<T>() || align_of::<T>() < align_of::<u64>() {
            return;
        }
        // SAFETY: within the record, and aligned as just checked. Others access this word only whole.
        unsafe { AtomicU64::from_ptr(record.as_ptr().cast::<u64>().add(word)) }
            .fetch_add(value, Ordering::Relaxed);
    }

    /// Changes a record, and writes only the words of it that the change touched: the kernel may be counting
    /// other packets of the same flow.
    pub(super) fn change(&self, index: u32, change: impl FnOnce(&mut T)) {
        let before = self.read(index);
        let mut after = before;
        change(&mut after);
        let ((before, _), (after, _)) =
            (before.as_bytes().as_chunks::<8>(), after.as_bytes().as_chunks::<8>());
        for (word, (before, after)) in before.iter().zip(after).enumerate() {
            if before != after {
                self.store_word(index, word, u64::from_ne_bytes(*after));
            }
        }
    }

    /// Has a record brought near, as [`near`] does.
    pub(super) fn near(&self, index: u32) {
        if let Some(record) = self.at(index) {
            fetch(record.as_ptr().cast(), size_of::<T>());
        }
    }
}

/// Has a value brought into this core's cache, and does not wait for it: of several that are asked for together the memory
/// brings many at the same time, where one after the other is waited for whole.
pub(super) fn near<T>(value: &T) {
    fetch(ptr::from_ref(value).cast(), size_of::<T>());
}

fn fetch(address: *const u8, bytes: usize) {
    /// Bytes of a line of the cache.
    const LINE: usize = 64;
    #[cfg(target_arch = "x86_64")]
    for offset in (0..bytes).step_by(LINE) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a hint to the cache, which changes nothing whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.wrapping_add(offset).cast()) };
    }
    // Other architectures have their own hint, which the compiler does not offer yet.
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (address, bytes, LINE);
}

impl<T> Drop for SharedArray<T> {
    fn drop(&mut self) {
        if let Memory::Mapped(bytes) = self.memory {
            // SAFETY: the very mapping that `of_map` made, which no one can reach any more.
            unsafe { libc::munmap(self.base.as_ptr().cast(), bytes) };
        }
    }
}

impl<T> std::fmt::Debug for SharedArray<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let place = match &self.memory {
            Memory::Heap(records) => format!("{} on the heap", records.len()),
            Memory::Mapped(bytes) => format!("{} in a map of {bytes} bytes", self.length),
        };
        f.debug_tuple("SharedArray").field(&place).finish()
    }
}

/// Waits for a ring of kernel memory to be readable, within a tokio runtime.
pub(super) fn watch<T: KernelRing>(ring: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: the types that are `KernelRing` own their descriptor, keep it open for as long as they live
    // and never change it.
    unsafe { AsyncFd::register(ring) }.map_err(|error| error.into_parts().1)
}

/// The rings that the kernel programs write to.
pub(super) trait KernelRing: AsRawFd {}
impl KernelRing for aya::maps::RingBuf<aya::maps::MapData> {}
impl KernelRing for aya_log::EbpfLogger<&'static dyn log::Log> {}

/// The monotonic clock that the kernel programs read, in nanoseconds.
#[must_use]
pub fn monotonic_ns() -> u64 {
    clock_ns(libc::CLOCK_MONOTONIC)
}

/// The time of day in nanoseconds since 1970, as the kernel stamps packets with.
pub(super) fn realtime_ns() -> u64 {
    clock_ns(libc::CLOCK_REALTIME)
}

fn clock_ns(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a valid timespec; both clocks exist on every Linux.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_back_and_indices_beyond_the_end_are_harmless() {
        let array = SharedArray::<u64>::on_heap(4);
        array.write(3, 7);
        array.write(4, 9);
        array.store_word(2, 0, 5);
        array.store_word(2, 1, 6);
        array.change(2, |value| *value += 1);
        array.add_to_word(3, 0, 2);
        array.add_to_word(3, 1, 2);
        array.add_to_word(4, 0, 2);
        assert_eq!((0..6).map(|i| array.read(i)).collect::<Vec<_>>(), [0, 0, 6, 9, 0, 0]);
    }
}
