//! What two processes say to each other: lines of JSON over a unix socket, some with descriptors.
//!
//! A message says how many descriptors go with it; they arrive with its bytes or before, and in order.
//! Messages, and the descriptors of one, have a bound.

use super::sockets::Offered;
use crate::switch::admission::InUse;
use rustix::cmsg_space;
use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use tokio::io::Interest;
use tokio::net::UnixStream;

/// Largest message: thousands of listeners fit.
const MESSAGE_BYTES_MAX: usize = 1024 * 1024;
/// Most descriptors of one message; Linux takes 253.
pub(super) const DESCRIPTORS_MAX: usize = 64;

/// See the table in [`upgrade`](super).
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "snake_case")]
pub(super) enum Message {
    Hello {
        protocol: u32,
        version: String,
    },
    /// With a process descriptor for each that drains already.
    Offer {
        protocol: u32,
        version: String,
        upgrade: String,
        sockets: Vec<Offered>,
        #[serde(default)]
        draining: Vec<u32>,
        /// The colours that clients are on, by cluster, where releases need a schema.
        #[serde(default)]
        in_use: InUse,
    },
    Ready {
        /// Hash of its configuration.
        hash: String,
        /// Positions of what it wants of the offer, in the order in which it wants them.
        claims: Vec<usize>,
        /// Listeners that it has bound itself.
        bound: Vec<String>,
    },
    /// With as many descriptors as there are positions.
    Sockets {
        positions: Vec<usize>,
        last: bool,
    },
    Taken,
    Parted {
        /// A reload was asked for meanwhile, and is left to the new process.
        reload: bool,
    },
    /// The new process goes, and says why.
    GaveUp {
        why: String,
    },
}

impl Message {
    /// As errors name it.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Hello { .. } => "hello",
            Self::Offer { .. } => "offer",
            Self::Ready { .. } => "ready",
            Self::Sockets { .. } => "sockets",
            Self::Taken => "taken",
            Self::Parted { .. } => "parted",
            Self::GaveUp { .. } => "that it gives up",
        }
    }
}

/// One side of a conversation.
#[derive(Debug)]
pub(super) struct Channel {
    stream: UnixStream,
    read: Vec<u8>,
    descriptors: Vec<OwnedFd>,
}

// === impl Channel ===

impl Channel {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            read: Vec::new(),
            descriptors: Vec::new(),
        }
    }

    /// Says something that goes without descriptors.
    pub(super) async fn send(&self, message: &Message) -> io::Result<()> {
        self.send_with(message, &[]).await
    }

    /// Says something, and hands over these descriptors, [`DESCRIPTORS_MAX`] at most.
    pub(super) async fn send_with(
        &self,
        message: &Message,
        descriptors: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        let mut line = serde_json::to_vec(message)?;
        line.push(b'\n');
        let mut sent = 0;
        while sent < line.len() {
            // They go with the first byte.
            let descriptors = if sent == 0 { descriptors } else { &[] };
            let part = &line[sent..];
            let send = || self.send_part(part, descriptors);
            sent += self.stream.async_io(Interest::WRITABLE, send).await?;
        }
        Ok(())
    }

    fn send_part(&self, part: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<usize> {
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let too_many = || Err(io::Error::other("too many descriptors for one message"));
        if descriptors.len() > DESCRIPTORS_MAX {
            return too_many();
        }
        if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return too_many();
        }
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let sent = sendmsg(&self.stream, &[IoSlice::new(part)], &mut control, flags)?;
        Ok(sent)
    }

    /// The next message; `None` where the other side is gone. Cancel safe.
    pub(super) async fn receive(&mut self) -> io::Result<Option<Message>> {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.read.drain(..=end).collect();
                return Ok(Some(serde_json::from_slice(&line)?));
            }
            if self.read.len() > MESSAGE_BYTES_MAX {
                return Err(io::Error::other("a message is too long"));
            }
            let receive = || self.receive_part();
            let (bytes, descriptors) = self.stream.async_io(Interest::READABLE, receive).await?;
            if bytes.is_empty() {
                return Ok(None);
            }
            self.read.extend(bytes);
            self.descriptors.extend(descriptors);
            if self.descriptors.len() > 2 * DESCRIPTORS_MAX {
                return Err(io::Error::other(
                    "more descriptors came than were announced",
                ));
            }
        }
    }

    /// The descriptors of the message that was received last, which said that there are so many.
    ///
    /// # Errors
    /// There are fewer.
    pub(super) fn take(&mut self, count: usize) -> io::Result<Vec<OwnedFd>> {
        if count > self.descriptors.len() {
            return Err(io::Error::other(
                "fewer descriptors came than were announced",
            ));
        }
        Ok(self.descriptors.drain(..count).collect())
    }

    fn receive_part(&self) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
        let mut bytes = [0; 4096];
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let received = recvmsg(&self.stream, &mut parts, &mut control, flags)?;
        let mut descriptors = Vec::new();
        for extra in control.drain() {
            if let RecvAncillaryMessage::ScmRights(some) = extra {
                descriptors.extend(some);
            }
        }
        if received.flags.contains(ReturnFlags::CTRUNC) {
            return Err(io::Error::other(
                "descriptors are lost; is the limit of open files reached?",
            ));
        }
        Ok((bytes[..received.bytes].to_vec(), descriptors))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fd::AsFd as _;
    use std::net::TcpListener;

    fn pair() -> (Channel, Channel) {
        let (one, other) = UnixStream::pair().expect("a pair");
        (Channel::new(one), Channel::new(other))
    }

    #[tokio::test]
    async fn messages_come_one_by_one_and_descriptors_with_theirs() {
        let (one, mut other) = pair();
        let sockets: Vec<_> = (0..DESCRIPTORS_MAX)
            .map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port"))
            .collect();
        let borrowed: Vec<_> = sockets.iter().map(|socket| socket.as_fd()).collect();
        one.send(&Message::Taken).await.expect("sent");
        let positions = (0..sockets.len()).collect();
        let message = Message::Sockets {
            positions,
            last: true,
        };
        let sent = one.send_with(&message, &borrowed).await;
        sent.expect("sent");
        let message = other.receive().await.expect("a channel");
        assert!(matches!(message, Some(Message::Taken)));
        let message = other.receive().await.expect("a channel");
        assert!(matches!(message, Some(Message::Sockets { last: true, .. })));
        let received = other.take(sockets.len()).expect("all of them");
        assert!(other.take(1).is_err());
        for (sent, received) in sockets.iter().zip(received) {
            let received = TcpListener::from(received);
            assert_eq!(
                sent.local_addr().expect("one"),
                received.local_addr().expect("one")
            );
        }
        drop(one);
        assert!(other.receive().await.expect("a channel").is_none());
    }

    #[tokio::test]
    async fn a_message_without_an_end_and_one_that_is_none_are_errors() {
        for text in [vec![b'a'; MESSAGE_BYTES_MAX + 10_000], b"hello\n".to_vec()] {
            let (one, other) = UnixStream::pair().expect("a pair");
            let mut other = Channel::new(other);
            tokio::spawn(async move {
                let mut one = one;
                // The reader gives up before it is all written.
                tokio::io::AsyncWriteExt::write_all(&mut one, &text)
                    .await
                    .ok();
                std::future::pending::<()>().await;
            });
            assert!(other.receive().await.is_err());
        }
    }

    #[tokio::test]
    async fn more_descriptors_than_a_message_may_have_are_not_sent() {
        let (one, _other) = pair();
        let file = std::fs::File::open("/dev/null").expect("a file");
        let many = vec![file.as_fd(); DESCRIPTORS_MAX + 1];
        let sent = one.send_with(&Message::Taken, &many).await;
        assert!(sent.is_err());
    }
}
