//! The opening of a connection: the server's greeting, the request for TLS, and the client's answer.

use mysql_common::constants::{CapabilityFlags, StatusFlags};

use super::auth::NONCE_BYTES;
use super::codec::Reader;
use crate::{Error, Result};

/// What this server can do, apart from TLS.
pub const SERVER_CAPABILITIES: CapabilityFlags = CapabilityFlags::from_bits_truncate(
    CapabilityFlags::CLIENT_LONG_PASSWORD.bits()
        | CapabilityFlags::CLIENT_FOUND_ROWS.bits()
        | CapabilityFlags::CLIENT_LONG_FLAG.bits()
        | CapabilityFlags::CLIENT_CONNECT_WITH_DB.bits()
        | CapabilityFlags::CLIENT_NO_SCHEMA.bits()
        | CapabilityFlags::CLIENT_ODBC.bits()
        | CapabilityFlags::CLIENT_LOCAL_FILES.bits()
        | CapabilityFlags::CLIENT_IGNORE_SPACE.bits()
        | CapabilityFlags::CLIENT_PROTOCOL_41.bits()
        | CapabilityFlags::CLIENT_INTERACTIVE.bits()
        | CapabilityFlags::CLIENT_IGNORE_SIGPIPE.bits()
        | CapabilityFlags::CLIENT_TRANSACTIONS.bits()
        | CapabilityFlags::CLIENT_RESERVED.bits()
        | CapabilityFlags::CLIENT_SECURE_CONNECTION.bits()
        | CapabilityFlags::CLIENT_MULTI_STATEMENTS.bits()
        | CapabilityFlags::CLIENT_MULTI_RESULTS.bits()
        | CapabilityFlags::CLIENT_PS_MULTI_RESULTS.bits()
        | CapabilityFlags::CLIENT_PLUGIN_AUTH.bits()
        | CapabilityFlags::CLIENT_CONNECT_ATTRS.bits()
        | CapabilityFlags::CLIENT_PLUGIN_AUTH_LENENC_CLIENT_DATA.bits()
        | CapabilityFlags::CLIENT_SESSION_TRACK.bits()
        | CapabilityFlags::CLIENT_DEPRECATE_EOF.bits(),
);

/// The collation of the greeting: utf8mb4_0900_ai_ci.
const GREETING_COLLATION: u8 = 255;

/// The payload of the greeting (protocol version 10).
pub fn greeting(
    version: &str,
    connection_id: u64,
    nonce: &[u8; NONCE_BYTES],
    plugin: &str,
    capabilities: CapabilityFlags,
) -> Vec<u8> {
    let bits = capabilities.bits().to_le_bytes();
    let mut out = vec![10];
    out.extend_from_slice(version.as_bytes());
    out.push(0);
    out.extend_from_slice(&(connection_id as u32).to_le_bytes());
    out.extend_from_slice(&nonce[..8]);
    out.push(0);
    out.extend_from_slice(&bits[..2]);
    out.push(GREETING_COLLATION);
    out.extend_from_slice(&StatusFlags::SERVER_STATUS_AUTOCOMMIT.bits().to_le_bytes());
    out.extend_from_slice(&bits[2..]);
    out.push(NONCE_BYTES as u8 + 1);
    out.extend_from_slice(&[0; 10]);
    out.extend_from_slice(&nonce[8..]);
    out.push(0);
    out.extend_from_slice(plugin.as_bytes());
    out.push(0);
    out
}

/// The client's answer to the greeting.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HandshakeResponse {
    /// What the client can do.
    pub capabilities: CapabilityFlags,
    /// Its collation's id.
    pub collation_id: u16,
    /// Whether TLS comes next and this was all.
    pub wants_tls: bool,
    /// Account name.
    pub user: String,
    /// The proof of the password, for `plugin` and the greeting's challenge.
    pub auth: Vec<u8>,
    /// The database to begin with.
    pub database: Option<String>,
    /// The method `auth` is for; absent from old clients.
    pub plugin: Option<String>,
    /// Connection attributes: `_client_name`, `program_name` …
    pub attributes: Vec<(String, String)>,
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl HandshakeResponse {
    /// Decodes the client's answer, or its request for TLS, which is the answer's first 32 bytes.
    pub fn decode(payload: &[u8]) -> Result<HandshakeResponse> {
        let mut reader = Reader::new(payload);
        let capabilities = CapabilityFlags::from_bits_truncate(reader.u32()?);
        if !capabilities.contains(CapabilityFlags::CLIENT_PROTOCOL_41) {
            return Err(Error::BadHandshake);
        }
        let _packet_bytes_max = reader.u32()?;
        let collation_low = reader.u8()?;
        let filler: [u8; 23] = reader.array()?;
        let mut response = HandshakeResponse {
            capabilities,
            // Clients with a collation above 255 put the high byte into the filler.
            collation_id: u16::from_le_bytes([collation_low, if filler[0] < 2 { filler[0] } else { 0 }]),
            ..HandshakeResponse::default()
        };
        if reader.is_empty() && capabilities.contains(CapabilityFlags::CLIENT_SSL) {
            response.wants_tls = true;
            return Ok(response);
        }
        response.user = text(reader.nul_bytes()?);
        response.auth = read_auth(&mut reader, capabilities)?.to_vec();
        if capabilities.contains(CapabilityFlags::CLIENT_CONNECT_WITH_DB) && !reader.is_empty() {
            response.database = Some(text(reader.nul_or_rest())).filter(|name| !name.is_empty());
        }
        if capabilities.contains(CapabilityFlags::CLIENT_PLUGIN_AUTH) && !reader.is_empty() {
            response.plugin = Some(text(reader.nul_or_rest()));
        }
        if capabilities.contains(CapabilityFlags::CLIENT_CONNECT_ATTRS) && !reader.is_empty() {
            response.attributes = read_attributes(&mut reader)?;
        }
        Ok(response)
    }
}

fn read_auth<'a>(reader: &mut Reader<'a>, capabilities: CapabilityFlags) -> Result<&'a [u8]> {
    if capabilities.contains(CapabilityFlags::CLIENT_PLUGIN_AUTH_LENENC_CLIENT_DATA) {
        reader.lenenc_bytes()
    } else if capabilities.contains(CapabilityFlags::CLIENT_SECURE_CONNECTION) {
        let length = usize::from(reader.u8()?);
        reader.bytes(length)
    } else {
        Ok(reader.nul_or_rest())
    }
}

fn read_attributes(reader: &mut Reader<'_>) -> Result<Vec<(String, String)>> {
    let mut list = Reader::new(reader.lenenc_bytes()?);
    let mut attributes = Vec::new();
    while !list.is_empty() {
        attributes.push((text(list.lenenc_bytes()?), text(list.lenenc_bytes()?)));
    }
    Ok(attributes)
}

/// COM_CHANGE_USER's payload after its command byte.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ChangeUser {
    /// As in the handshake.
    pub response: HandshakeResponse,
}

impl ChangeUser {
    /// Decodes the command; `capabilities` are those of the connection.
    pub fn decode(payload: &[u8], capabilities: CapabilityFlags) -> Result<ChangeUser> {
        let mut reader = Reader::new(payload);
        let mut response = HandshakeResponse { capabilities, ..HandshakeResponse::default() };
        response.user = text(reader.nul_bytes()?);
        let length = usize::from(reader.u8()?);
        response.auth = reader.bytes(length)?.to_vec();
        response.database = Some(text(reader.nul_or_rest())).filter(|name| !name.is_empty());
        if !reader.is_empty() {
            response.collation_id = reader.u16()?;
        }
        if capabilities.contains(CapabilityFlags::CLIENT_PLUGIN_AUTH) && !reader.is_empty() {
            response.plugin = Some(text(reader.nul_or_rest()));
        }
        if capabilities.contains(CapabilityFlags::CLIENT_CONNECT_ATTRS) && !reader.is_empty() {
            response.attributes = read_attributes(&mut reader)?;
        }
        Ok(ChangeUser { response })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What MySQL 8's client sends as root without a password to database `test`, attributes shortened.
    fn sample() -> Vec<u8> {
        let capabilities = SERVER_CAPABILITIES.bits().to_le_bytes();
        let mut payload = capabilities.to_vec();
        payload.extend_from_slice(&[0, 0, 0, 1, 255]);
        payload.extend_from_slice(&[0; 23]);
        payload.extend_from_slice(b"root\0\0test\0caching_sha2_password\0");
        payload.extend_from_slice(b"\x0b\x04_pid\x05123\xc3\xa9");
        payload
    }

    #[test]
    fn a_clients_answer_is_decoded() {
        let response = HandshakeResponse::decode(&sample()).unwrap();
        assert_eq!(response.user, "root");
        assert_eq!(response.auth, b"");
        assert_eq!(response.database.as_deref(), Some("test"));
        assert_eq!(response.plugin.as_deref(), Some("caching_sha2_password"));
        assert_eq!(response.collation_id, 255);
        assert_eq!(response.attributes, [("_pid".to_owned(), "123é".to_owned())]);
    }

    #[test]
    fn a_request_for_tls_is_the_answers_beginning() {
        let mut payload = sample();
        payload[1] |= 0x08;
        payload.truncate(32);
        assert!(HandshakeResponse::decode(&payload).unwrap().wants_tls);
    }

    #[test]
    fn every_truncation_is_an_error_or_a_shorter_answer_and_never_a_panic() {
        let payload = sample();
        for length in 0..payload.len() {
            let _ = HandshakeResponse::decode(&payload[..length]);
            let _ = ChangeUser::decode(&payload[..length], SERVER_CAPABILITIES);
        }
        let old = (CapabilityFlags::CLIENT_LONG_PASSWORD.bits()).to_le_bytes();
        assert_eq!(HandshakeResponse::decode(&old), Err(Error::BadHandshake));
    }

    #[test]
    fn the_greeting_has_the_documented_layout() {
        let nonce = *b"abcdefghij0123456789";
        let payload = greeting("8.4.6", 7, &nonce, "caching_sha2_password", SERVER_CAPABILITIES);
        assert_eq!(&payload[..7], b"\x0a8.4.6\0");
        assert_eq!(&payload[7..11], &[7, 0, 0, 0]);
        assert_eq!(&payload[11..20], b"abcdefgh\0");
        assert_eq!(payload[27], 21);
        assert_eq!(&payload[38..51], b"ij0123456789\0");
        assert!(payload.ends_with(b"caching_sha2_password\0"));
    }
}
