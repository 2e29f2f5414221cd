//! Accounts: who may log in, how they prove it, and what they may do. Stored in the cluster under `m` beside the catalog, one
//! JSON value per account, so every SQL server sees the same ones.
//!
//! What can be granted at present is `ALL PRIVILEGES` on everything or on one database; finer grants are refused rather than
//! recorded and not enforced.

use std::collections::BTreeMap;

use bytes::Bytes;
use rand::Rng;
use rutile_client::{Client, KeyRange, ScanOptions, TxnOptions};
use serde::{Deserialize, Serialize};
use sha1::{Digest, Sha1};
use sha2::Sha256;

use crate::{Error, Result};

/// Where accounts are stored: `m_account/` user NUL host.
const KEY_PREFIX: &[u8] = b"m_account/";
/// Bytes of salt in a stored caching_sha2_password.
pub const CRYPT_SALT_BYTES: usize = 20;
const CRYPT_ROUNDS: usize = 5000;

/// How an account proves itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum AuthPlugin {
    /// `mysql_native_password`
    NativePassword,
    /// `caching_sha2_password`, MySQL's default.
    CachingSha2Password,
}

impl AuthPlugin {
    /// The method with this name.
    pub fn from_name(name: &str) -> Result<AuthPlugin> {
        match name {
            "mysql_native_password" => Ok(AuthPlugin::NativePassword),
            "caching_sha2_password" => Ok(AuthPlugin::CachingSha2Password),
            _ => Err(Error::PluginNotLoaded { plugin: name.to_owned() }),
        }
    }
}

/// One account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Its name; empty is anonymous.
    pub user: String,
    /// The client hosts it is for: `%` any, `_` one character.
    pub host: String,
    /// How it proves itself.
    pub plugin: AuthPlugin,
    /// The stored proof; empty is no password.
    #[serde(with = "hex_bytes")]
    pub auth: Vec<u8>,
    /// Refused at log-in.
    #[serde(default)]
    pub locked: bool,
    /// Databases (lower case) with all privileges; `*` is everything. The value: whether it may grant them on.
    #[serde(default)]
    pub all_on: BTreeMap<String, bool>,
}

mod hex_bytes {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&hex::encode(bytes))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        hex::decode(String::deserialize(from)?).map_err(D::Error::custom)
    }
}

impl Account {
    /// An account with a method and no password.
    pub fn new(user: impl Into<String>, host: impl Into<String>) -> Account {
        Account {
            user: user.into(),
            host: host.into(),
            plugin: AuthPlugin::CachingSha2Password,
            auth: Vec::new(),
            locked: false,
            all_on: BTreeMap::new(),
        }
    }

    /// The account every cluster starts with: root from anywhere, no password, all privileges.
    pub fn root() -> Account {
        let mut root = Account::new("root", "%");
        root.all_on.insert("*".to_owned(), true);
        root
    }

    /// Whether it may do everything.
    pub fn is_super(&self) -> bool {
        self.all_on.contains_key("*")
    }

    /// Whether it may use a database.
    pub fn may_use(&self, database: &str) -> bool {
        self.is_super()
            || self.all_on.contains_key(&database.to_lowercase())
            || database.eq_ignore_ascii_case("information_schema")
    }

    /// `'user'@'host'`, quoted for SHOW GRANTS: `` `user`@`host` ``.
    pub fn quoted(&self) -> String {
        format!("`{}`@`{}`", self.user.replace('`', "``"), self.host.replace('`', "``"))
    }

    /// The statement of SHOW CREATE USER.
    pub fn create_statement(&self) -> String {
        let plugin = match self.plugin {
            AuthPlugin::NativePassword => "mysql_native_password",
            AuthPlugin::CachingSha2Password => "caching_sha2_password",
        };
        let mut text = format!("CREATE USER {} IDENTIFIED WITH '{plugin}'", self.quoted());
        if !self.auth.is_empty() {
            text.push_str(" AS '");
            for c in String::from_utf8_lossy(&self.auth).chars() {
                match c {
                    '\'' => text.push_str("\\'"),
                    '\\' => text.push_str("\\\\"),
                    '\n' => text.push_str("\\n"),
                    '\r' => text.push_str("\\r"),
                    other => text.push(other),
                }
            }
            text.push('\'');
        }
        let lock = if self.locked { "LOCK" } else { "UNLOCK" };
        text.push_str(&format!(
            " REQUIRE NONE PASSWORD EXPIRE DEFAULT ACCOUNT {lock} PASSWORD HISTORY DEFAULT PASSWORD REUSE \
             INTERVAL DEFAULT PASSWORD REQUIRE CURRENT DEFAULT"
        ));
        text
    }

    /// The lines of SHOW GRANTS.
    pub fn grants(&self) -> Vec<String> {
        let account = self.quoted();
        let option = |grantable: bool| if grantable { " WITH GRANT OPTION" } else { "" };
        let mut lines = Vec::new();
        match self.all_on.get("*") {
            Some(grantable) => {
                lines.push(format!("GRANT ALL PRIVILEGES ON *.* TO {account}{}", option(*grantable)))
            }
            None => lines.push(format!("GRANT USAGE ON *.* TO {account}")),
        }
        for (database, grantable) in self.all_on.iter().filter(|(database, _)| *database != "*") {
            let database = database.replace('`', "``");
            lines.push(format!("GRANT ALL PRIVILEGES ON `{database}`.* TO {account}{}", option(*grantable)));
        }
        lines
    }

    fn key(&self) -> Vec<u8> {
        account_key(&self.user, &self.host)
    }
}

fn account_key(user: &str, host: &str) -> Vec<u8> {
    let mut key = KEY_PREFIX.to_vec();
    key.extend_from_slice(user.as_bytes());
    key.push(0);
    key.extend_from_slice(host.to_lowercase().as_bytes());
    key
}

/// The accounts in the cluster.
#[derive(Clone)]
pub struct Accounts {
    client: Client,
}

impl Accounts {
    /// The accounts of this cluster.
    pub fn new(client: Client) -> Accounts {
        Accounts { client }
    }

    /// All accounts; a cluster that never stored any has root alone.
    pub async fn all(&self) -> Result<Vec<Account>> {
        let snapshot = self.client.snapshot(self.client.timestamp().await?);
        let pairs = snapshot.scan(KeyRange::prefix(KEY_PREFIX), ScanOptions::default()).collect().await?;
        if pairs.is_empty() {
            return Ok(vec![Account::root()]);
        }
        pairs.iter().map(|pair| decode(&pair.value)).collect()
    }

    /// The account a client logs in to: exact hosts before patterns, names before the anonymous account.
    pub async fn find(&self, user: &str, host: &str) -> Result<Option<Account>> {
        let mut matching: Vec<Account> = self.all().await?;
        matching.retain(|a| (a.user == user || a.user.is_empty()) && host_matches(&a.host, host));
        matching.sort_by_key(|a| (host_rank(&a.host), a.user.is_empty()));
        Ok(matching.into_iter().next())
    }

    /// Changes accounts in one transaction: `change` gets the account as it is and answers what it becomes, `None` for
    /// no account, or an error, which changes nothing at all.
    pub async fn change(
        &self,
        names: &[(String, String)],
        mut change: impl FnMut(&(String, String), Option<Account>) -> Result<Option<Account>>,
    ) -> Result<()> {
        let txn = self.client.begin(TxnOptions::default()).await?;
        let existing =
            txn.scan(KeyRange::prefix(KEY_PREFIX), ScanOptions::default()).await?.collect().await?;
        if existing.is_empty() {
            store(&txn, &Account::root())?;
        }
        let result = async {
            for name in names {
                let key = account_key(&name.0, &name.1);
                let before = txn.get(&key).await?.map(|value| decode(&value)).transpose()?;
                match change(name, before)? {
                    Some(account) => {
                        if account.key() != key {
                            txn.delete(key)?;
                        }
                        store(&txn, &account)?;
                    }
                    None => txn.delete(key)?,
                }
            }
            Ok(())
        };
        match result.await {
            Ok(()) => {
                txn.commit().await?;
                Ok(())
            }
            Err(error) => {
                txn.rollback().await?;
                Err(error)
            }
        }
    }
}

fn store(txn: &rutile_client::Transaction, account: &Account) -> Result<()> {
    let value = serde_json::to_vec(account).map_err(|e| Error::internal(e.to_string()))?;
    Ok(txn.put(account.key(), Bytes::from(value))?)
}

fn decode(value: &[u8]) -> Result<Account> {
    serde_json::from_slice(value).map_err(|e| Error::internal(format!("stored account: {e}")))
}

/// Exact names first, then patterns by the length of their fixed beginning, `%` last.
fn host_rank(host: &str) -> usize {
    match host.find(['%', '_']) {
        None => 0,
        Some(fixed) => usize::MAX - fixed,
    }
}

/// Whether a client at `host` is one of those `pattern` is for.
pub fn host_matches(pattern: &str, host: &str) -> bool {
    if pattern.eq_ignore_ascii_case("localhost") && matches!(host, "127.0.0.1" | "::1") {
        return true;
    }
    let (pattern, host) = (pattern.to_lowercase(), host.to_lowercase());
    like(pattern.as_bytes(), host.as_bytes())
}

fn like(pattern: &[u8], text: &[u8]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some((b'%', rest)) => (0..=text.len()).any(|skip| like(rest, &text[skip..])),
        Some((b'_', rest)) => !text.is_empty() && like(rest, &text[1..]),
        Some((byte, rest)) => text.first() == Some(byte) && like(rest, &text[1..]),
    }
}

/// What to store for a password; empty for none.
pub fn hash_password(plugin: AuthPlugin, password: &[u8]) -> Vec<u8> {
    if password.is_empty() {
        return Vec::new();
    }
    match plugin {
        AuthPlugin::NativePassword => native_hash(password).into_bytes(),
        AuthPlugin::CachingSha2Password => {
            let mut salt = [0u8; CRYPT_SALT_BYTES];
            let mut random = rand::rng();
            // Printable and never `$`, which separates the fields.
            salt.iter_mut().for_each(|byte| *byte = random.random_range(b'%'..=b'~'));
            caching_sha2_crypt(password, &salt, CRYPT_ROUNDS)
        }
    }
}

/// `*` and SHA1(SHA1(password)) in hex.
pub fn native_hash(password: &[u8]) -> String {
    format!("*{}", hex::encode_upper(Sha1::digest(Sha1::digest(password))))
}

/// `$A$rounds$salt` and the SHA-256-crypt digest.
pub fn caching_sha2_crypt(password: &[u8], salt: &[u8], rounds: usize) -> Vec<u8> {
    let mut stored = format!("$A${:03X}$", rounds / 1000).into_bytes();
    stored.extend_from_slice(salt);
    stored.extend_from_slice(&sha256_crypt(password, salt, rounds));
    stored
}

/// Ulrich Drepper's SHA-256-crypt, for any length of salt.
fn sha256_crypt(password: &[u8], salt: &[u8], rounds: usize) -> Vec<u8> {
    let b = Sha256::new().chain_update(password).chain_update(salt).chain_update(password).finalize();
    let mut a = Sha256::new().chain_update(password).chain_update(salt);
    a.update(repeat_to(&b, password.len()));
    let mut bits = password.len();
    while bits > 0 {
        if bits & 1 == 1 {
            a.update(b)
        } else {
            a.update(password)
        }
        bits >>= 1;
    }
    let mut a = a.finalize();
    let p_digest = (0..password.len()).fold(Sha256::new(), |acc, _| acc.chain_update(password)).finalize();
    let p = repeat_to(&p_digest, password.len());
    let s_digest =
        (0..16 + usize::from(a[0])).fold(Sha256::new(), |acc, _| acc.chain_update(salt)).finalize();
    let s = repeat_to(&s_digest, salt.len());
    for round in 0..rounds {
        let mut c = Sha256::new();
        if round % 2 == 1 {
            c.update(&p)
        } else {
            c.update(a)
        }
        if round % 3 != 0 {
            c.update(&s);
        }
        if round % 7 != 0 {
            c.update(&p);
        }
        if round % 2 == 1 {
            c.update(a)
        } else {
            c.update(&p)
        }
        a = c.finalize();
    }
    crypt_base64(&a)
}

fn repeat_to(bytes: &[u8], length: usize) -> Vec<u8> {
    bytes.iter().copied().cycle().take(length).collect()
}

fn crypt_base64(digest: &[u8]) -> Vec<u8> {
    const ALPHABET: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut out = Vec::with_capacity(43);
    let mut put = |bits: u32, count: usize| {
        (0..count).for_each(|i| out.push(ALPHABET[(bits >> (6 * i)) as usize & 63]));
    };
    let (mut i, mut j, mut k) = (0usize, 10usize, 20usize);
    for _ in 0..10 {
        put(u32::from(digest[i]) << 16 | u32::from(digest[j]) << 8 | u32::from(digest[k]), 4);
        (i, j, k) = (k + 1, i + 1, j + 1);
    }
    put(u32::from(digest[31]) << 8 | u32::from(digest[30]), 3);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sha256_crypt_agrees_with_its_authors_vector() {
        let digest = sha256_crypt(b"Hello world!", b"saltstring", 5000);
        assert_eq!(digest, b"5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5");
    }

    #[test]
    fn hosts_match_as_mysql_matches_them() {
        assert!(host_matches("%", "10.0.0.1"));
        assert!(host_matches("10.0.%", "10.0.0.1"));
        assert!(!host_matches("10.1.%", "10.0.0.1"));
        assert!(host_matches("LocalHost", "127.0.0.1"));
        assert!(host_rank("10.0.0.1") < host_rank("10.0.%") && host_rank("10.0.%") < host_rank("10.%"));
        assert!(host_rank("10.%") < host_rank("%"));
    }

    #[test]
    fn accounts_survive_their_stored_form() {
        let mut account = Account::root();
        account.auth = vec![0, 255, b'$'];
        assert_eq!(decode(&serde_json::to_vec(&account).unwrap()).unwrap(), account);
        assert_eq!(account.grants(), ["GRANT ALL PRIVILEGES ON *.* TO `root`@`%` WITH GRANT OPTION"]);
    }
}
