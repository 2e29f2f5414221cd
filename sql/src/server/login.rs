//! Logging in: the greeting, TLS, and the authentication rounds, for a new connection and for COM_CHANGE_USER.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mysql_common::constants::CapabilityFlags;

use super::Shared;
use super::auth::{NONCE_BYTES, native_verify, plugin_name, random_nonce};
use super::handshake::{HandshakeResponse, SERVER_CAPABILITIES, greeting};
use super::packet::{PacketError, PacketIo};
use super::response::write_error;
use crate::session::Login;
use crate::session::instance::VERSION;
use crate::session::privilege::{Account, AuthPlugin};
use crate::{Error, Result};

/// What a client may send before it has logged in.
pub const LOGIN_PAYLOAD_BYTES_MAX: usize = 128 << 10;
const DEFAULT_PLUGIN: &str = "caching_sha2_password";
/// AuthMoreData of caching_sha2_password.
const FAST_OK: [u8; 2] = [1, 3];
const FULL_NEEDED: [u8; 2] = [1, 4];
const REQUEST_PUBLIC_KEY: u8 = 2;

/// Why a log-in ended.
pub enum LoginError {
    /// The client gets this error.
    Refused(Error),
    /// The client is gone.
    Gone,
}

impl From<Error> for LoginError {
    fn from(error: Error) -> Self {
        LoginError::Refused(error)
    }
}

impl From<PacketError> for LoginError {
    fn from(error: PacketError) -> Self {
        match error {
            PacketError::TooLarge { .. } => LoginError::Refused(Error::PacketTooLarge),
            PacketError::OutOfOrder { .. } => LoginError::Refused(Error::PacketsOutOfOrder),
            PacketError::Io(_) | PacketError::TimedOut => LoginError::Gone,
        }
    }
}

impl From<std::io::Error> for LoginError {
    fn from(_: std::io::Error) -> Self {
        LoginError::Gone
    }
}

/// A client that has logged in.
pub struct LoggedIn {
    /// What both sides can do.
    pub capabilities: CapabilityFlags,
    /// What the session needs.
    pub login: Login,
    /// The database to begin with.
    pub database: Option<String>,
}

/// Greets a new client and lets it log in, within the time allowed.
pub async fn log_in(shared: &Shared, io: &mut PacketIo, id: u64, host: &str) -> Result<LoggedIn, LoginError> {
    let seconds = shared.instance.globals().get("connect_timeout").map_or(10, |value| value.as_u64());
    let login = log_in_untimed(shared, io, id, host);
    tokio::time::timeout(Duration::from_secs(seconds), login).await.unwrap_or(Err(LoginError::Gone))
}

async fn log_in_untimed(
    shared: &Shared,
    io: &mut PacketIo,
    id: u64,
    host: &str,
) -> Result<LoggedIn, LoginError> {
    let nonce = random_nonce();
    let mut offered = SERVER_CAPABILITIES;
    offered.set(CapabilityFlags::CLIENT_SSL, shared.tls.is_some());
    io.write(&greeting(VERSION, id, &nonce, DEFAULT_PLUGIN, offered));
    io.flush().await?;
    let mut response = HandshakeResponse::decode(&io.read().await?)?;
    if response.wants_tls {
        let Some(acceptor) = &shared.tls else { return Err(Error::BadHandshake.into()) };
        io.upgrade_to_tls(acceptor).await?;
        response = HandshakeResponse::decode(&io.read().await?)?;
        if response.wants_tls {
            return Err(Error::BadHandshake.into());
        }
    }
    let must_encrypt =
        shared.instance.globals().get("require_secure_transport").is_some_and(|value| value.is_on());
    if must_encrypt && !io.is_tls() {
        return Err(Error::SecureTransportRequired.into());
    }
    let capabilities = response.capabilities & offered;
    let account = authenticate(shared, io, &response, host, Some(nonce)).await?;
    Ok(logged_in(io, response, account, capabilities))
}

fn logged_in(
    io: &PacketIo,
    response: HandshakeResponse,
    account: Account,
    capabilities: CapabilityFlags,
) -> LoggedIn {
    let login = Login {
        user: response.user,
        account,
        collation_id: response.collation_id,
        count_found: capabilities.contains(CapabilityFlags::CLIENT_FOUND_ROWS),
        interactive: capabilities.contains(CapabilityFlags::CLIENT_INTERACTIVE),
        tls: io.tls_details(),
    };
    LoggedIn { capabilities, login, database: response.database }
}

/// COM_CHANGE_USER: another user on the same connection. The client's proof is for the challenge of its log-in, which is
/// no longer known, so it is always asked again.
pub async fn change_user(
    shared: &Shared,
    io: &mut PacketIo,
    response: HandshakeResponse,
    host: &str,
) -> Result<LoggedIn, LoginError> {
    let capabilities = response.capabilities;
    let account = authenticate(shared, io, &response, host, None).await?;
    Ok(logged_in(io, response, account, capabilities))
}

/// Finds the account and has the client prove its password; `nonce` is the challenge that `response.auth` answers.
async fn authenticate(
    shared: &Shared,
    io: &mut PacketIo,
    response: &HandshakeResponse,
    host: &str,
    nonce: Option<[u8; NONCE_BYTES]>,
) -> Result<Account, LoginError> {
    if shared.instance.config.skip_grant_tables {
        return Ok(Account::root());
    }
    let found = shared.instance.accounts.find(&response.user, host).await?;
    let refused = |proof: &[u8]| Error::AccessDenied {
        user: response.user.clone(),
        host: host.to_owned(),
        using_password: if proof.is_empty() || proof == [0] { "NO" } else { "YES" },
    };
    // An unknown user goes through the same rounds as one with a password, and fails at their end.
    let unknown = Account { auth: vec![b'*'], ..Account::new(&response.user, host) };
    let account = found.clone().unwrap_or(unknown);
    let asked = response.plugin.as_deref().unwrap_or("mysql_native_password");
    let knows_asked = AuthPlugin::from_name(asked).is_ok();
    let empty = response.auth.is_empty() || response.auth == [0];
    if account.auth.is_empty() && knows_asked && nonce.is_some() {
        return if empty && !account.locked { Ok(account) } else { Err(refused(&response.auth).into()) };
    }
    let (nonce, proof) = match nonce {
        Some(nonce) if asked == plugin_name(account.plugin) => {
            (nonce, Bytes::copy_from_slice(&response.auth))
        }
        _ => switch(io, account.plugin).await?,
    };
    let proven = prove(shared, io, &account, &nonce, &proof).await?;
    match (proven, found) {
        (true, Some(account)) if account.locked => Err(Error::Mysql {
            code: 3118,
            state: "HY000",
            message: format!("Access denied for user '{}'@'{host}'. Account is locked.", response.user),
        }
        .into()),
        (true, Some(account)) => Ok(account),
        _ => Err(refused(&proof).into()),
    }
}

/// Asks the client to use another method, with a new challenge.
async fn switch(io: &mut PacketIo, plugin: AuthPlugin) -> Result<([u8; NONCE_BYTES], Bytes), LoginError> {
    let nonce = random_nonce();
    let out = io.begin_packet();
    out.push(0xfe);
    out.extend_from_slice(plugin_name(plugin).as_bytes());
    out.push(0);
    out.extend_from_slice(&nonce);
    out.push(0);
    io.end_packet();
    io.flush().await?;
    Ok((nonce, io.read().await?))
}

async fn prove(
    shared: &Shared,
    io: &mut PacketIo,
    account: &Account,
    nonce: &[u8; NONCE_BYTES],
    proof: &Bytes,
) -> Result<bool, LoginError> {
    if account.auth.is_empty() {
        return Ok(proof.is_empty() || proof[..] == [0]);
    }
    match account.plugin {
        AuthPlugin::NativePassword => {
            let stored = std::str::from_utf8(&account.auth).unwrap_or_default();
            Ok(native_verify(stored, nonce, proof))
        }
        AuthPlugin::CachingSha2Password => prove_sha2(shared, io, account, nonce, proof).await,
    }
}

async fn prove_sha2(
    shared: &Shared,
    io: &mut PacketIo,
    account: &Account,
    nonce: &[u8; NONCE_BYTES],
    proof: &Bytes,
) -> Result<bool, LoginError> {
    if proof.is_empty() || proof[..] == [0] {
        return Ok(false);
    }
    if shared.auth.verify_cached(&account.auth, nonce, proof) == Some(true) {
        io.write(&FAST_OK);
        return Ok(true);
    }
    io.write(&FULL_NEEDED);
    io.flush().await?;
    let mut answer = io.read().await?.to_vec();
    if !io.is_tls() {
        if answer == [REQUEST_PUBLIC_KEY] {
            let auth = Arc::clone(&shared.auth);
            let pem = off_thread(move || auth.public_key_pem()).await??;
            let out = io.begin_packet();
            out.push(1);
            out.extend_from_slice(pem.as_bytes());
            io.end_packet();
            io.flush().await?;
            answer = io.read().await?.to_vec();
        }
        let (auth, nonce) = (Arc::clone(&shared.auth), *nonce);
        answer = off_thread(move || auth.decrypt_password(&nonce, &answer)).await??;
    }
    if answer.last() == Some(&0) {
        answer.pop();
    }
    let (auth, stored) = (Arc::clone(&shared.auth), account.auth.clone());
    off_thread(move || auth.verify_full(&stored, &answer)).await
}

/// Hashing and RSA take milliseconds: not on a thread that serves others.
async fn off_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, LoginError> {
    tokio::task::spawn_blocking(work).await.map_err(|e| Error::internal(e.to_string()).into())
}

/// Tells a client why it is not let in.
pub async fn refuse(io: &mut PacketIo, error: &Error) {
    write_error(io, CapabilityFlags::CLIENT_PROTOCOL_41, error);
    let _ = io.flush().await;
    io.shutdown().await;
}
