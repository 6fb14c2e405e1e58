//! Connections of our own to endpoints, for what pingora does not carry.

use super::probe::Tls;
use hub_config::runtime::EndpointAddress;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::client::TlsStream;

/// A connection to an endpoint.
#[derive(Debug)]
pub(crate) enum Wire {
    Plain(Plain),
    Tls(Box<TlsStream<Plain>>),
}

/// A socket.
#[derive(Debug)]
pub(crate) enum Plain {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// Connects, TLS handshake included. The caller bounds the time.
pub(super) async fn connect(
    address: &EndpointAddress,
    tls: Option<&Result<Tls, String>>,
) -> io::Result<Wire> {
    let plain = match address {
        EndpointAddress::Tcp(address) => {
            let stream = TcpStream::connect(address).await?;
            // Messages are small, and wait for nobody.
            stream.set_nodelay(true)?;
            Plain::Tcp(stream)
        }
        EndpointAddress::Unix(path) => Plain::Unix(UnixStream::connect(path).await?),
    };
    match tls {
        None => Ok(Wire::Plain(plain)),
        Some(Ok(tls)) => Ok(Wire::Tls(Box::new(tls.connect(plain).await?))),
        Some(Err(error)) => Err(io::Error::other(error.clone())),
    }
}

/// Calls a method of whichever stream it is.
macro_rules! of_either {
    ($self:ident, $one:path, $other:path, $method:ident($($argument:expr),*)) => {
        match $self.get_mut() {
            $one(stream) => Pin::new(stream).$method($($argument),*),
            $other(stream) => Pin::new(stream).$method($($argument),*),
        }
    };
}

impl AsyncRead for Plain {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        of_either!(self, Plain::Tcp, Plain::Unix, poll_read(cx, buf))
    }
}

impl AsyncWrite for Plain {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        of_either!(self, Plain::Tcp, Plain::Unix, poll_write(cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        of_either!(self, Plain::Tcp, Plain::Unix, poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        of_either!(self, Plain::Tcp, Plain::Unix, poll_shutdown(cx))
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        of_either!(self, Wire::Plain, Wire::Tls, poll_read(cx, buf))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        of_either!(self, Wire::Plain, Wire::Tls, poll_write(cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        of_either!(self, Wire::Plain, Wire::Tls, poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        of_either!(self, Wire::Plain, Wire::Tls, poll_shutdown(cx))
    }
}
