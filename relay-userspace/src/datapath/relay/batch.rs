//! Datagrams in batches: receiving them with what the kernel knows of each (its original destination, its
//! type-of-service byte and when it arrived), and sending them with one system call.
//!
//! `sendmmsg` stops at the first message that the kernel refuses, and tells why only if that was the first of the call
//! (sendmmsg(2)). Invariant: each message of a batch is tried once and in order, and who gave it learns whether it went.
#![expect(
    unsafe_code,
    reason = "recvmmsg, sendmmsg and control messages have no safe interface in the standard library"
)]

use std::{
    io,
    mem::{self, MaybeUninit},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6},
    ops::Range,
    os::fd::{AsRawFd, BorrowedFd},
    ptr,
};

use arrayvec::ArrayVec;
use socket2::{Domain, SockAddr};

/// Datagrams in a batch.
pub(crate) const BATCH: usize = 32;
/// Bytes of the largest UDP payload: fragments are put together before they come here.
const DATAGRAM: usize = 65_535;
/// Bytes for the control messages of one datagram: address, type of service, time stamp.
const CONTROL: usize = 128;

/// Whether receiving waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    /// For nothing.
    No,
    /// For the first datagram, on a socket that blocks; what has come by then is taken with it.
    ForOne,
}

impl Wait {
    const fn flags(self) -> libc::c_int {
        match self {
            Self::No => libc::MSG_DONTWAIT,
            Self::ForOne => libc::MSG_WAITFORONE,
        }
    }
}

/// A datagram that was received.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Received<'a> {
    /// Where it was sent to.
    pub local: SocketAddr,
    /// Where it came from.
    pub source: SocketAddr,
    /// Its type-of-service byte.
    pub type_of_service: u8,
    /// When the kernel received it, in nanoseconds since 1970.
    pub stamp_ns: Option<u64>,
    /// Its payload.
    pub payload: &'a [u8],
}

/// Control messages, aligned for their headers.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Control([u8; CONTROL]);

/// Memory for a batch.
pub(crate) struct ReceiveBatch {
    payloads: Vec<u8>,
    controls: Vec<Control>,
    sources: Vec<libc::sockaddr_storage>,
}

impl ReceiveBatch {
    pub(crate) fn new() -> Self {
        // SAFETY: an all-zero sockaddr_storage is a valid value.
        let source: libc::sockaddr_storage = unsafe { mem::zeroed() };
        Self {
            payloads: vec![0; BATCH * DATAGRAM],
            controls: vec![Control([0; CONTROL]); BATCH],
            sources: vec![source; BATCH],
        }
    }

    /// Asks the kernel to tell each datagram's type of service, time of arrival and original destination.
    ///
    /// # Errors
    /// That of `setsockopt`.
    pub(crate) fn prepare(socket: &impl AsRawFd, family: Domain) -> io::Result<()> {
        let ip = if family == Domain::IPV6 {
            [(libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS), (libc::IPPROTO_IPV6, libc::IPV6_RECVORIGDSTADDR)]
        } else {
            [(libc::IPPROTO_IP, libc::IP_RECVTOS), (libc::IPPROTO_IP, libc::IP_RECVORIGDSTADDR)]
        };
        for (level, option) in ip.into_iter().chain([(libc::SOL_SOCKET, libc::SO_TIMESTAMPNS)]) {
            let on: libc::c_int = 1;
            // SAFETY: the pointer and the length are those of `on`.
            let result = unsafe {
                libc::setsockopt(
                    socket.as_raw_fd(),
                    level,
                    option,
                    (&raw const on).cast(),
                    size_of_val(&on) as libc::socklen_t,
                )
            };
            if result != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    }

    /// Receives what is there, at most a batch. Datagrams whose destination the kernel does not tell are taken to be
    /// for `local`.
    ///
    /// # Errors
    /// That of `recvmmsg`, [`io::ErrorKind::WouldBlock`] if nothing is there and nothing is waited for.
    pub(crate) fn receive(
        &mut self,
        socket: BorrowedFd<'_>,
        local: Option<SocketAddr>,
        wait: Wait,
    ) -> io::Result<ArrayVec<Received<'_>, BATCH>> {
        let mut vectors = [const { MaybeUninit::<libc::iovec>::uninit() }; BATCH];
        let mut messages = [const { MaybeUninit::<libc::mmsghdr>::uninit() }; BATCH];
        for (index, payload) in self.payloads.chunks_exact_mut(DATAGRAM).enumerate() {
            let vector = vectors[index]
                .write(libc::iovec { iov_base: payload.as_mut_ptr().cast(), iov_len: payload.len() });
            // SAFETY: an all-zero mmsghdr is a valid value.
            let mut message: libc::mmsghdr = unsafe { mem::zeroed() };
            message.msg_hdr.msg_name = (&raw mut self.sources[index]).cast();
            message.msg_hdr.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
            message.msg_hdr.msg_iov = vector;
            message.msg_hdr.msg_iovlen = 1;
            message.msg_hdr.msg_control = self.controls[index].0.as_mut_ptr().cast();
            message.msg_hdr.msg_controllen = CONTROL;
            messages[index].write(message);
        }
        // SAFETY: BATCH headers are initialised, each with pointers to memory of its own that lives until
        // the end of this function and has the stated lengths.
        let count = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                messages.as_mut_ptr().cast(),
                BATCH as libc::c_uint,
                wait.flags(),
                ptr::null_mut(),
            )
        };
        let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
        let mut received = ArrayVec::new();
        for (index, message) in messages.iter().take(count).enumerate() {
            // SAFETY: all headers were initialised above.
            let message = unsafe { message.assume_init_ref() };
            let told = control_messages(&message.msg_hdr);
            let Some(local) = told.destination.or(local) else { continue };
            let Some(source) = address(&self.sources[index]) else { continue };
            let start = index * DATAGRAM;
            let length = (message.msg_len as usize).min(DATAGRAM);
            received.push(Received {
                local,
                source,
                type_of_service: told.type_of_service,
                stamp_ns: told.stamp_ns,
                payload: &self.payloads[start..start + length],
            });
        }
        Ok(received)
    }
}

/// A datagram that is to be sent.
#[derive(Debug, Clone)]
pub(super) struct Message<'a> {
    /// To where.
    pub to: SockAddr,
    /// What the sender writes before the payload; empty if the kernel does.
    pub headers: &'a [u8],
    /// Its payload.
    pub payload: &'a [u8],
}

/// Sends at most a batch of datagrams, in order and without waiting; tells those that did not go, and why, before the
/// next one is sent.
pub(super) fn send(socket: BorrowedFd<'_>, messages: &[Message<'_>], failed: impl FnMut(usize, io::Error)) {
    let messages = &messages[..messages.len().min(BATCH)];
    let mut vectors: ArrayVec<[libc::iovec; 2], BATCH> = ArrayVec::new();
    let mut headers: ArrayVec<libc::mmsghdr, BATCH> = ArrayVec::new();
    for message in messages {
        vectors.push([message.headers, message.payload].map(|bytes| libc::iovec {
            // The kernel only reads from there.
            iov_base: bytes.as_ptr().cast_mut().cast(),
            iov_len: bytes.len(),
        }));
    }
    for (message, vectors) in messages.iter().zip(&mut vectors) {
        // SAFETY: an all-zero mmsghdr is a valid value.
        let mut header: libc::mmsghdr = unsafe { mem::zeroed() };
        header.msg_hdr.msg_name = message.to.as_ptr().cast_mut().cast();
        header.msg_hdr.msg_namelen = message.to.len();
        let used = if message.headers.is_empty() { &mut vectors[1..] } else { &mut vectors[..] };
        (header.msg_hdr.msg_iov, header.msg_hdr.msg_iovlen) = (used.as_mut_ptr(), used.len());
        headers.push(header);
    }
    let call = |range: Range<usize>| {
        let headers = &mut headers[range];
        // SAFETY: as many headers as stated, each with pointers to an address, vectors and bytes that live until the end
        // of this function and have the stated lengths.
        let sent = unsafe {
            libc::sendmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr(),
                headers.len() as libc::c_uint,
                libc::MSG_DONTWAIT,
            )
        };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    };
    send_each(messages.len(), call, failed);
}

/// Has `call` send messages of a range until each was tried; it says how many went, from the range's first on, or why the
/// first one did not.
fn send_each(
    count: usize,
    mut call: impl FnMut(Range<usize>) -> io::Result<usize>,
    mut failed: impl FnMut(usize, io::Error),
) {
    let mut next = 0;
    while next < count {
        match call(next..count) {
            // It says one at least; were it none, this would go on for ever.
            Ok(0) => {
                failed(next, io::ErrorKind::WriteZero.into());
                next += 1;
            }
            Ok(sent) => next += sent,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                failed(next, error);
                next += 1;
            }
        }
    }
}

#[derive(Default)]
struct Told {
    destination: Option<SocketAddr>,
    type_of_service: u8,
    stamp_ns: Option<u64>,
}

fn control_messages(header: &libc::msghdr) -> Told {
    let mut told = Told::default();
    // SAFETY: the header is as recvmmsg left it: the macros walk the control messages that the kernel
    // wrote within `msg_controllen`, and each is read as the type that its level and kind state.
    unsafe {
        let mut next = libc::CMSG_FIRSTHDR(header);
        while !next.is_null() {
            let data = libc::CMSG_DATA(next);
            match ((*next).cmsg_level, (*next).cmsg_type) {
                (libc::IPPROTO_IP, libc::IP_ORIGDSTADDR) => {
                    told.destination = Some(ipv4(&ptr::read_unaligned(data.cast())));
                }
                (libc::IPPROTO_IPV6, libc::IPV6_ORIGDSTADDR) => {
                    told.destination = Some(ipv6(&ptr::read_unaligned(data.cast())));
                }
                (libc::IPPROTO_IP, libc::IP_TOS) => told.type_of_service = *data,
                (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
                    let class: libc::c_int = ptr::read_unaligned(data.cast());
                    told.type_of_service = class as u8;
                }
                (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) => {
                    let time: libc::timespec = ptr::read_unaligned(data.cast());
                    told.stamp_ns = Some(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64);
                }
                _ => {}
            }
            next = libc::CMSG_NXTHDR(header, next);
        }
    }
    told
}

/// An address of either family; none of another.
fn address(address: &libc::sockaddr_storage) -> Option<SocketAddr> {
    let address = ptr::from_ref(address);
    // SAFETY: a sockaddr_storage is large enough and aligned for either, and the family says which it holds.
    unsafe {
        match libc::c_int::from((*address).ss_family) {
            libc::AF_INET => Some(ipv4(&*address.cast())),
            libc::AF_INET6 => Some(ipv6(&*address.cast())),
            _ => None,
        }
    }
}

fn ipv4(address: &libc::sockaddr_in) -> SocketAddr {
    let ip = Ipv4Addr::from(address.sin_addr.s_addr.to_ne_bytes());
    SocketAddr::V4(SocketAddrV4::new(ip, u16::from_be(address.sin_port)))
}

/// Without scope and flow label, which name no party.
fn ipv6(address: &libc::sockaddr_in6) -> SocketAddr {
    let ip = Ipv6Addr::from(address.sin6_addr.s6_addr);
    SocketAddr::V6(SocketAddrV6::new(ip, u16::from_be(address.sin6_port), 0, 0))
}

#[cfg(test)]
mod tests {
    use std::{net::UdpSocket, os::fd::AsFd as _};

    use super::*;

    /// What the kernel answers to a call: messages sent, or an error.
    type Answer = Result<usize, i32>;

    #[test]
    fn each_message_is_tried_once_in_order_whatever_becomes_of_those_before() {
        use libc::{EAGAIN, EINTR, EMSGSIZE, EPERM};
        #[expect(clippy::type_complexity, reason = "rows")]
        let rows: &[(&str, &[Answer], &[usize], &[(usize, i32)])] = &[
            ("all at once", &[Ok(4)], &[0], &[]),
            ("fewer than given", &[Ok(1), Ok(2), Ok(1)], &[0, 1, 3], &[]),
            ("an error at the first", &[Err(EPERM), Ok(3)], &[0, 1], &[(0, EPERM)]),
            ("an error in the midst", &[Ok(2), Err(EMSGSIZE), Ok(1)], &[0, 2, 3], &[(2, EMSGSIZE)]),
            ("an error at the last", &[Ok(3), Err(EPERM)], &[0, 3], &[(3, EPERM)]),
            (
                "a full queue that empties",
                &[Ok(1), Err(EAGAIN), Err(EAGAIN), Ok(1)],
                &[0, 1, 2, 3],
                &[(1, EAGAIN), (2, EAGAIN)],
            ),
            ("a signal", &[Ok(1), Err(EINTR), Ok(3)], &[0, 1, 1], &[]),
        ];
        for (description, answers, calls, failures) in rows {
            let (mut answers, mut called, mut failed) = (answers.iter(), Vec::new(), Vec::new());
            send_each(
                4,
                |range| {
                    assert_eq!(range.end, 4, "{description}");
                    called.push(range.start);
                    let answer = answers.next().unwrap();
                    answer.map_err(io::Error::from_raw_os_error)
                },
                |index, error| failed.push((index, error.raw_os_error().unwrap())),
            );
            assert_eq!((&called[..], &failed[..]), (*calls, *failures), "{description}");
            assert!(answers.next().is_none(), "{description}");
        }
    }

    #[test]
    fn what_the_kernel_refuses_does_not_keep_the_rest_from_going() {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = SockAddr::from(receiver.local_addr().unwrap());
        // No UDP payload is so long (RFC 768).
        let (long, nowhere) = (vec![0; 65_535], SockAddr::from("127.0.0.1:0".parse::<SocketAddr>().unwrap()));
        let message = |payload, to: &SockAddr| Message { to: to.clone(), headers: b"<", payload };
        let messages = [
            message(b"one", &to),
            message(&long, &to),
            message(b"nowhere", &nowhere),
            message(b"", &to),
            message(b"four", &to),
        ];
        let mut failed = Vec::new();
        send(sender.as_fd(), &messages, |index, error| failed.push((index, error.raw_os_error())));
        assert_eq!(failed, [(1, Some(libc::EMSGSIZE)), (2, Some(libc::EINVAL))]);
        let mut batch = ReceiveBatch::new();
        let received =
            batch.receive(receiver.as_fd(), Some(receiver.local_addr().unwrap()), Wait::No).unwrap();
        let payloads: Vec<&[u8]> = received.iter().map(|received| received.payload).collect();
        assert_eq!(payloads, [b"<one".as_slice(), b"<", b"<four"]);
    }

    #[test]
    fn a_batch_tells_payload_source_destination_type_of_service_and_time() {
        for (family, address) in [(Domain::IPV4, "127.0.0.1:0"), (Domain::IPV6, "[::1]:0")] {
            a_batch_tells_everything(family, address);
        }
    }

    fn a_batch_tells_everything(family: Domain, address: &str) {
        let receiver = UdpSocket::bind(address).unwrap();
        ReceiveBatch::prepare(&receiver, family).unwrap();
        let sender = UdpSocket::bind(address).unwrap();
        let socket = socket2::SockRef::from(&sender);
        if family == Domain::IPV6 { socket.set_tclass_v6(0xB8) } else { socket.set_tos_v4(0xB8) }.unwrap();
        let to = receiver.local_addr().unwrap();
        sender.send_to(b"one", to).unwrap();
        sender.send_to(b"", to).unwrap();
        let mut batch = ReceiveBatch::new();
        let received = batch.receive(receiver.as_fd(), None, Wait::No).unwrap();
        let payloads: Vec<&[u8]> = received.iter().map(|received| received.payload).collect();
        assert_eq!(payloads, [b"one".as_slice(), b""]);
        for received in received {
            assert_eq!((received.local, received.source), (to, sender.local_addr().unwrap()));
            assert_eq!(received.type_of_service, 0xB8);
            assert!(received.stamp_ns.is_some());
        }
        assert_eq!(
            batch.receive(receiver.as_fd(), None, Wait::No).unwrap_err().kind(),
            io::ErrorKind::WouldBlock
        );
    }
}
