//! Packets over a byte stream: `length (3 B, little endian) | sequence (1 B) | payload`, payloads of 2^24 - 1 bytes continued
//! in the next packet. One in buffer and one out buffer per connection; nothing is written before [`PacketIo::flush`], except
//! when the out buffer outgrows [`OUT_BYTES_MAX`].

use std::io;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// The longest payload one packet carries; a packet of exactly this length is continued by the next.
pub const PACKET_PAYLOAD_BYTES_MAX: usize = 0xff_ffff;
/// The out buffer is written to the socket when it outgrows this in the middle of a result set.
pub const OUT_BYTES_MAX: usize = 64 << 10;
/// Buffers larger than this are given back when a command is done.
const IDLE_BUFFER_BYTES_MAX: usize = 16 << 10;
const READ_BYTES: usize = 4 << 10;
/// What is read of a refused packet, and for how long, before the connection is closed.
const DRAINED_BYTES_MAX: usize = 1 << 30;
const DRAIN_TIME_MAX: Duration = Duration::from_secs(2);

/// Why a connection cannot go on reading.
#[derive(Debug, thiserror::Error)]
pub enum PacketError {
    /// The client went away, or its stream broke.
    #[error("connection lost: {0}")]
    Io(#[from] io::Error),
    /// The client sends more than it may; tell it, then close.
    #[error("packet of more than {limit_bytes} bytes")]
    TooLarge {
        /// The limit in force.
        limit_bytes: usize,
    },
    /// The client's sequence numbers jump; tell it, then close.
    #[error("packet with sequence {got} instead of {expected}")]
    OutOfOrder {
        /// What we counted.
        expected: u8,
        /// What came.
        got: u8,
    },
    /// Nothing came for the time the caller gave.
    #[error("no packet within the time limit")]
    TimedOut,
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    /// While the stream is being turned into a TLS one.
    Moving,
}

/// The two buffers of a connection and the stream under them.
pub struct PacketIo {
    stream: Stream,
    input: BytesMut,
    out: Vec<u8>,
    sequence: u8,
    payload_bytes_max: usize,
    /// Where the packet being written starts in `out`.
    packet_start: usize,
}

impl PacketIo {
    /// Wraps a fresh connection; `payload_bytes_max` bounds what the client may send.
    pub fn new(stream: TcpStream, payload_bytes_max: usize) -> PacketIo {
        PacketIo {
            stream: Stream::Plain(stream),
            input: BytesMut::new(),
            out: Vec::new(),
            sequence: 0,
            payload_bytes_max,
            packet_start: 0,
        }
    }

    /// Sets the bound on a packet's payload (`max_allowed_packet`).
    pub fn set_payload_bytes_max(&mut self, bytes: usize) {
        self.payload_bytes_max = bytes;
    }

    /// A new command starts: numbering starts anew and outgrown buffers are given back.
    pub fn begin_command(&mut self) {
        self.sequence = 0;
        if self.out.capacity() > IDLE_BUFFER_BYTES_MAX {
            self.out = Vec::new();
        }
        if self.input.is_empty() && self.input.capacity() > IDLE_BUFFER_BYTES_MAX {
            self.input = BytesMut::new();
        }
    }

    /// Reads one payload, joining continued packets; gives up after `limit`. Not cancel-safe.
    pub async fn read_within(&mut self, limit: Duration) -> Result<Bytes, PacketError> {
        match tokio::time::timeout(limit, self.read()).await {
            Ok(result) => result,
            Err(_) => Err(PacketError::TimedOut),
        }
    }

    /// Reads one payload, joining continued packets. Not cancel-safe.
    pub async fn read(&mut self) -> Result<Bytes, PacketError> {
        let (first, mut more) = self.read_one(0).await?;
        if !more {
            return Ok(first);
        }
        let mut whole = BytesMut::from(&first[..]);
        drop(first);
        while more {
            let (part, goes_on) = self.read_one(whole.len()).await?;
            whole.extend_from_slice(&part);
            more = goes_on;
        }
        Ok(whole.freeze())
    }

    async fn read_one(&mut self, already_bytes: usize) -> Result<(Bytes, bool), PacketError> {
        self.fill(4).await?;
        let length =
            usize::from(self.input[0]) | usize::from(self.input[1]) << 8 | usize::from(self.input[2]) << 16;
        let got = self.input[3];
        if got != self.sequence {
            return Err(PacketError::OutOfOrder { expected: self.sequence, got });
        }
        self.sequence = self.sequence.wrapping_add(1);
        if already_bytes + length > self.payload_bytes_max {
            return Err(PacketError::TooLarge { limit_bytes: self.payload_bytes_max });
        }
        self.input.advance(4);
        self.fill(length).await?;
        Ok((self.input.split_to(length).freeze(), length == PACKET_PAYLOAD_BYTES_MAX))
    }

    /// Reads until `input` holds `bytes`.
    async fn fill(&mut self, bytes: usize) -> Result<(), PacketError> {
        while self.input.len() < bytes {
            let missing = bytes - self.input.len();
            // What the client announces is not yet here: buffer space follows the data, doubling.
            self.input.reserve(missing.min(self.input.len().max(READ_BYTES)));
            let read = match &mut self.stream {
                Stream::Plain(stream) => stream.read_buf(&mut self.input).await?,
                Stream::Tls(stream) => stream.read_buf(&mut self.input).await?,
                Stream::Moving => 0,
            };
            if read == 0 {
                return Err(PacketError::Io(io::ErrorKind::UnexpectedEof.into()));
            }
        }
        Ok(())
    }

    /// Starts a packet; the caller appends its payload to the returned buffer and calls [`PacketIo::end_packet`].
    pub fn begin_packet(&mut self) -> &mut Vec<u8> {
        self.packet_start = self.out.len();
        self.out.extend_from_slice(&[0; 4]);
        &mut self.out
    }

    /// Ends the packet begun last: writes its header, splitting payloads of 16 MiB and more.
    pub fn end_packet(&mut self) {
        let start = self.packet_start;
        let length = self.out.len() - start - 4;
        if length >= PACKET_PAYLOAD_BYTES_MAX {
            self.split_packet(start, length);
            return;
        }
        self.out[start] = length as u8;
        self.out[start + 1] = (length >> 8) as u8;
        self.out[start + 2] = (length >> 16) as u8;
        self.out[start + 3] = self.sequence;
        self.sequence = self.sequence.wrapping_add(1);
    }

    fn split_packet(&mut self, start: usize, length: usize) {
        let payload = self.out.split_off(start).split_off(4);
        self.out.reserve(length + 4 * (length / PACKET_PAYLOAD_BYTES_MAX + 1));
        let mut rest = &payload[..];
        loop {
            let part_bytes = rest.len().min(PACKET_PAYLOAD_BYTES_MAX);
            let (part, next) = rest.split_at(part_bytes);
            self.out.extend_from_slice(&(part_bytes as u32).to_le_bytes()[..3]);
            self.out.push(self.sequence);
            self.sequence = self.sequence.wrapping_add(1);
            self.out.extend_from_slice(part);
            rest = next;
            // A payload that fills its last packet is followed by an empty one.
            if part_bytes < PACKET_PAYLOAD_BYTES_MAX {
                return;
            }
        }
    }

    /// Writes a payload held elsewhere as one packet.
    pub fn write(&mut self, payload: &[u8]) {
        self.begin_packet().extend_from_slice(payload);
        self.end_packet();
    }

    /// Writes the out buffer to the socket if it has outgrown its bound.
    pub async fn flush_if_large(&mut self) -> io::Result<()> {
        if self.out.len() >= OUT_BYTES_MAX { self.flush().await } else { Ok(()) }
    }

    /// Writes the out buffer to the socket.
    pub async fn flush(&mut self) -> io::Result<()> {
        match &mut self.stream {
            Stream::Plain(stream) => stream.write_all(&self.out).await?,
            Stream::Tls(stream) => {
                stream.write_all(&self.out).await?;
                stream.flush().await?;
            }
            Stream::Moving => return Err(io::ErrorKind::NotConnected.into()),
        }
        self.out.clear();
        Ok(())
    }

    /// Goes on under TLS: what has been read past the request for it belongs to the TLS handshake, and nothing may be.
    pub async fn upgrade_to_tls(&mut self, acceptor: &TlsAcceptor) -> io::Result<()> {
        if !self.input.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "data before the TLS handshake"));
        }
        let Stream::Plain(plain) = std::mem::replace(&mut self.stream, Stream::Moving) else {
            return Err(io::ErrorKind::AlreadyExists.into());
        };
        self.stream = Stream::Tls(Box::new(acceptor.accept(plain).await?));
        Ok(())
    }

    /// Whether the stream is encrypted.
    pub fn is_tls(&self) -> bool {
        matches!(self.stream, Stream::Tls(_))
    }

    /// The TLS version and cipher in use, as `SHOW STATUS LIKE 'Ssl_%'` names them.
    pub fn tls_details(&self) -> Option<(String, String)> {
        let Stream::Tls(stream) = &self.stream else { return None };
        let connection = stream.get_ref().1;
        let version = match connection.protocol_version()?.as_str()? {
            "TLSv1_3" => "TLSv1.3",
            _ => "TLSv1.2",
        };
        let cipher = format!("{:?}", connection.negotiated_cipher_suite()?.suite());
        Some((version.to_owned(), cipher.replace("TLS13_", "TLS_")))
    }

    /// Completes when the client has closed its end or the stream broke; never while it is there. Cancel-safe.
    ///
    /// Polled while a statement runs, so that the work of a vanished client ends.
    pub async fn closed(&self) {
        let socket = match &self.stream {
            Stream::Plain(stream) => stream,
            Stream::Tls(stream) => stream.get_ref().0,
            Stream::Moving => return,
        };
        let mut byte = [0u8; 1];
        match socket.peek(&mut byte).await {
            Ok(0) | Err(_) => {}
            // The next command is already here: the client lives.
            Ok(_) => std::future::pending().await,
        }
    }

    /// Reads and drops what the client still sends, within bounds, so that it gets to read our last words instead of a
    /// reset.
    pub async fn drain(&mut self) {
        let drain = async {
            let mut left = DRAINED_BYTES_MAX;
            while left > 0 {
                self.input.clear();
                self.input.reserve(READ_BYTES);
                let read = match &mut self.stream {
                    Stream::Plain(stream) => stream.read_buf(&mut self.input).await,
                    Stream::Tls(stream) => stream.read_buf(&mut self.input).await,
                    Stream::Moving => return,
                };
                match read {
                    Ok(read) if read > 0 => left = left.saturating_sub(read),
                    _ => return,
                }
            }
        };
        let _ = tokio::time::timeout(DRAIN_TIME_MAX, drain).await;
    }

    /// Says farewell to the stream.
    pub async fn shutdown(&mut self) {
        let _ = match &mut self.stream {
            Stream::Plain(stream) => stream.shutdown().await,
            Stream::Tls(stream) => stream.shutdown().await,
            Stream::Moving => Ok(()),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    async fn pair() -> (PacketIo, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        (PacketIo::new(server, 64 << 20), client)
    }

    #[tokio::test]
    async fn pipelined_packets_are_read_one_by_one() {
        let (mut io, mut client) = pair().await;
        client.write_all(b"\x01\0\0\0a\x02\0\0\x01bc\0\0\0\x02").await.unwrap();
        assert_eq!(&io.read().await.unwrap()[..], b"a");
        assert_eq!(&io.read().await.unwrap()[..], b"bc");
        assert_eq!(&io.read().await.unwrap()[..], b"");
    }

    #[tokio::test]
    async fn payloads_of_16_mib_are_split_and_joined() {
        for length in [PACKET_PAYLOAD_BYTES_MAX - 1, PACKET_PAYLOAD_BYTES_MAX, PACKET_PAYLOAD_BYTES_MAX + 1] {
            let (mut writer, client) = pair().await;
            let mut reader = PacketIo::new(client, 64 << 20);
            let payload: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
            writer.write(&payload);
            let (written, read) = tokio::join!(writer.flush(), reader.read());
            written.unwrap();
            assert!(read.unwrap() == payload, "payload of {length} bytes differs");
            assert_eq!(writer.sequence, if length < PACKET_PAYLOAD_BYTES_MAX { 1 } else { 2 });
        }
    }

    #[tokio::test]
    async fn limits_and_order_are_enforced() {
        let (mut io, mut client) = pair().await;
        io.set_payload_bytes_max(8);
        client.write_all(b"\x09\0\0\0").await.unwrap();
        assert!(matches!(io.read().await, Err(PacketError::TooLarge { limit_bytes: 8 })));
        let (mut io, mut client) = pair().await;
        client.write_all(b"\x01\0\0\x05a").await.unwrap();
        assert!(matches!(io.read().await, Err(PacketError::OutOfOrder { expected: 0, got: 5 })));
        let (mut io, client) = pair().await;
        drop(client);
        assert!(matches!(io.read().await, Err(PacketError::Io(_))));
        io.closed().await;
    }
}
