//! The two authentication methods: `mysql_native_password` and `caching_sha2_password`. Pure functions over scrambles, and
//! the cache and RSA key of the second.
//!
//! Stored forms, as MySQL's `mysql.user.authentication_string` has them: native, `*` and 40 hex digits of SHA1(SHA1(password));
//! caching SHA-2, `$A$005$`, 20 bytes of salt, 43 characters of SHA-256-crypt with 5000 rounds.

use std::sync::{Arc, OnceLock};

use dashmap::DashMap;
use rsa::pkcs8::{EncodePublicKey, LineEnding};
use rsa::{Oaep, RsaPrivateKey};
use sha1::Sha1;
use sha2::{Digest, Sha256};

use crate::session::privilege::{AuthPlugin, CRYPT_SALT_BYTES, caching_sha2_crypt};
use crate::{Error, Result};

/// Bytes of the random challenge.
pub const NONCE_BYTES: usize = 20;
const RSA_BITS: usize = 2048;

/// The challenge of one connection: printable, so that no byte is NUL.
pub fn random_nonce() -> [u8; NONCE_BYTES] {
    let mut nonce: [u8; NONCE_BYTES] = rand::random();
    for byte in &mut nonce {
        *byte = *byte % 94 + 33;
    }
    nonce
}

fn sha1(parts: &[&[u8]]) -> [u8; 20] {
    let mut hasher = Sha1::new();
    parts.iter().for_each(|part| hasher.update(part));
    hasher.finalize().into()
}

fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    parts.iter().for_each(|part| hasher.update(part));
    hasher.finalize().into()
}

/// Compares without telling by its duration where the difference is.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |acc, (x, y)| acc | (x ^ y)) == 0
}

/// Whether `token` proves knowledge of the password stored as `*HEX`.
pub fn native_verify(stored: &str, nonce: &[u8], token: &[u8]) -> bool {
    let Some(Ok(stored)) = stored.strip_prefix('*').map(hex::decode) else { return false };
    if token.len() != 20 {
        return false;
    }
    let mask = sha1(&[nonce, &stored]);
    let stage1: Vec<u8> = token.iter().zip(mask).map(|(a, b)| a ^ b).collect();
    same(&sha1(&[&stage1]), &stored)
}

/// Whether `token` proves knowledge of the password whose SHA256(SHA256(password)) is `digest`.
pub fn caching_sha2_verify_fast(digest: &[u8; 32], nonce: &[u8], token: &[u8]) -> bool {
    if token.len() != 32 {
        return false;
    }
    let mask = sha256(&[digest, nonce]);
    let stage1: Vec<u8> = token.iter().zip(mask).map(|(a, b)| a ^ b).collect();
    same(&sha256(&[&stage1]), digest)
}

/// Whether `password` is the one stored as `$A$005$salt…`.
pub fn caching_sha2_verify_full(stored: &[u8], password: &[u8]) -> bool {
    let Some(rest) = stored.strip_prefix(b"$A$") else { return false };
    let (Some(rounds), Some(salt)) = (rest.get(..3), rest.get(4..4 + CRYPT_SALT_BYTES)) else { return false };
    let rounds = std::str::from_utf8(rounds).ok().and_then(|hex| usize::from_str_radix(hex, 16).ok());
    let Some(rounds) = rounds else { return false };
    same(&caching_sha2_crypt(password, salt, rounds * 1000), stored)
}

/// What all connections share of authentication.
#[derive(Default)]
pub struct AuthState {
    /// Stored form → SHA256(SHA256(password)), once somebody has proven the password in full. A changed password has
    /// another stored form, so nothing need be forgotten; the size is bounded by accounts that logged in.
    digests: DashMap<Vec<u8>, [u8; 32]>,
    rsa: OnceLock<(RsaPrivateKey, String)>,
}

/// Digests kept at most; beyond, everybody proves the password in full once more.
const DIGESTS_MAX: usize = 10_000;

impl AuthState {
    /// The fast path: `None` when the password must be proven in full.
    pub fn verify_cached(&self, stored: &[u8], nonce: &[u8], token: &[u8]) -> Option<bool> {
        let digest = self.digests.get(stored)?;
        // A wrong token may also mean that another server changed nothing but the salt: prove in full.
        caching_sha2_verify_fast(&digest, nonce, token).then_some(true)
    }

    /// Checks a clear password in full and remembers it for the fast path. Takes milliseconds of CPU.
    pub fn verify_full(&self, stored: &[u8], password: &[u8]) -> bool {
        let matches = caching_sha2_verify_full(stored, password);
        if matches {
            if self.digests.len() >= DIGESTS_MAX {
                self.digests.clear();
            }
            self.digests.insert(stored.to_vec(), sha256(&[&sha256(&[password])]));
        }
        matches
    }

    /// The public key in PEM; made on first use, which takes a while.
    pub fn public_key_pem(self: &Arc<Self>) -> Result<String> {
        Ok(self.rsa()?.1.clone())
    }

    fn rsa(&self) -> Result<&(RsaPrivateKey, String)> {
        if let Some(pair) = self.rsa.get() {
            return Ok(pair);
        }
        let private = RsaPrivateKey::new(&mut rsa::rand_core::OsRng, RSA_BITS)
            .map_err(|e| Error::internal(format!("cannot make an RSA key: {e}")))?;
        let pem = private
            .to_public_key()
            .to_public_key_pem(LineEnding::LF)
            .map_err(|e| Error::internal(format!("cannot encode the RSA key: {e}")))?;
        Ok(self.rsa.get_or_init(|| (private, pem)))
    }

    /// The password out of what a client without TLS sends: RSA-OAEP of the password XOR the challenge.
    pub fn decrypt_password(&self, nonce: &[u8], encrypted: &[u8]) -> Result<Vec<u8>> {
        let plain =
            self.rsa()?.0.decrypt(Oaep::new::<Sha1>(), encrypted).map_err(|_| Error::MalformedPacket)?;
        Ok(plain.iter().zip(nonce.iter().cycle()).map(|(a, b)| a ^ b).collect())
    }
}

/// The protocol's name of a method.
pub fn plugin_name(plugin: AuthPlugin) -> &'static str {
    match plugin {
        AuthPlugin::NativePassword => "mysql_native_password",
        AuthPlugin::CachingSha2Password => "caching_sha2_password",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::privilege::{hash_password, native_hash};

    const NONCE: &[u8; 20] = b"abcdefghij0123456789";

    fn native_token(password: &[u8]) -> Vec<u8> {
        let stage1 = sha1(&[password]);
        let mask = sha1(&[NONCE, &sha1(&[&stage1])]);
        stage1.iter().zip(mask).map(|(a, b)| a ^ b).collect()
    }

    fn sha2_token(password: &[u8]) -> Vec<u8> {
        let stage1 = sha256(&[password]);
        let mask = sha256(&[&sha256(&[&stage1]), NONCE]);
        stage1.iter().zip(mask).map(|(a, b)| a ^ b).collect()
    }

    #[test]
    fn native_password_is_stored_as_mysql_stores_it() {
        assert_eq!(native_hash(b"password"), "*2470C0C06DEE42FD1618BB99005ADCA2EC9D1E19");
        let stored = native_hash(b"secret");
        assert!(native_verify(&stored, NONCE, &native_token(b"secret")));
        assert!(!native_verify(&stored, NONCE, &native_token(b"Secret")));
        assert!(!native_verify(&stored, NONCE, b""));
        assert!(!native_verify("*nonsense", NONCE, &native_token(b"secret")));
    }

    #[test]
    fn caching_sha2_proves_in_full_first_and_fast_afterwards() {
        let state = AuthState::default();
        let stored = hash_password(AuthPlugin::CachingSha2Password, b"secret");
        assert_eq!(stored.len(), 70);
        let token = sha2_token(b"secret");
        assert_eq!(state.verify_cached(&stored, NONCE, &token), None);
        assert!(!state.verify_full(&stored, b"wrong"));
        assert!(state.verify_full(&stored, b"secret"));
        assert_eq!(state.verify_cached(&stored, NONCE, &token), Some(true));
        assert_eq!(state.verify_cached(&stored, NONCE, &sha2_token(b"wrong")), None);
    }

    #[test]
    fn a_password_travels_encrypted_without_tls() {
        let state = Arc::new(AuthState::default());
        let pem = state.public_key_pem().unwrap();
        assert!(pem.starts_with("-----BEGIN PUBLIC KEY-----"));
        let key = state.rsa().unwrap().0.to_public_key();
        let masked: Vec<u8> = b"secret\0".iter().zip(NONCE.iter().cycle()).map(|(a, b)| a ^ b).collect();
        let encrypted = key.encrypt(&mut rsa::rand_core::OsRng, Oaep::new::<Sha1>(), &masked).unwrap();
        assert_eq!(state.decrypt_password(NONCE, &encrypted).unwrap(), b"secret\0");
        assert_eq!(state.decrypt_password(NONCE, b"junk"), Err(Error::MalformedPacket));
    }
}
