//! Who belongs to the placement driver: the configured list, and what each member says of itself.
//!
//! The list is fixed when a data directory is made. A member that disagrees with it, comes from another cluster, or lost its
//! directory is refused: a member that forgot its votes could elect a leader without acknowledged writes.

use std::path::Path;

use serde::{Deserialize, Serialize};

use rutile_proto::pdpeerpb::Introduction;

use crate::config::Config;
use crate::error::{Error, Result};

/// Where a directory says whose it is.
const FILE: &str = "member.toml";
/// Records of the replicated state: `member/<name>` → [`MemberRecord`].
pub const RECORD_PREFIX: &[u8] = b"member/";

/// One of the configured members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its id in the raft group: its place in the list sorted by name, from 1.
    pub raft_id: u64,
    /// Its name.
    pub name: String,
    /// `http://host:port` for the other members.
    pub peer_url: String,
}

/// What the replicated state knows of a member.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct MemberRecord {
    /// Drawn when its directory was made.
    #[prost(uint64, tag = "1")]
    pub incarnation: u64,
    /// `http://host:port` for clients.
    #[prost(string, tag = "2")]
    pub client_url: String,
    /// Of the program.
    #[prost(string, tag = "3")]
    pub version: String,
}

/// All members, and which of them this is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Members {
    all: Vec<Member>,
    own: usize,
    /// Of this member's directory.
    pub incarnation: u64,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Identity {
    name: String,
    members: String,
    incarnation: String,
}

impl Members {
    /// Reads the list out of the configuration.
    pub fn parse(config: &Config) -> Result<Self> {
        let fail = |text: String| Err(Error::Config(text));
        let mut all = Vec::new();
        for part in config.initial_cluster.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let Some((name, url)) = part.split_once('=').filter(|(name, _)| !name.is_empty()) else {
                return fail(format!("initial-cluster must read name=http://host:port,…, not \"{part}\""));
            };
            let url = url.trim_end_matches('/');
            if url
                .strip_prefix("http://")
                .is_none_or(|address| !address.contains(':') || address.contains('/'))
            {
                return fail(format!("initial-cluster: \"{url}\" is not http://host:port"));
            }
            if all.iter().any(|m: &Member| m.name == name || m.peer_url == url) {
                return fail(format!("initial-cluster names {name} or {url} twice"));
            }
            all.push(Member { raft_id: 0, name: name.into(), peer_url: url.into() });
        }
        if all.is_empty() {
            all.push(Member { raft_id: 0, name: config.name.clone(), peer_url: config.peer_url() });
        }
        if !matches!(all.len(), 1 | 3 | 5) {
            return fail(format!("initial-cluster names {} members; 1, 3 or 5 are supported", all.len()));
        }
        all.sort_by(|a, b| a.name.cmp(&b.name));
        for (raft_id, member) in (1..).zip(&mut all) {
            member.raft_id = raft_id;
        }
        let Some(own) = all.iter().position(|member| member.name == config.name) else {
            return fail(format!("initial-cluster does not name this member, \"{}\"", config.name));
        };
        Ok(Members { all, own, incarnation: 0 })
    }

    /// Makes the directory this member's, or refuses one that is another's.
    pub fn claim(&mut self, dir: &Path) -> Result<()> {
        let path = dir.join(FILE);
        let members = self.list();
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return self.create(&path, members),
            Err(error) => return Err(Error::io(path)(error)),
        };
        let corrupt = |reason: String| Error::Corrupt { path: path.clone(), offset: 0, reason };
        let identity: Identity = toml::from_str(&text).map_err(|e| corrupt(e.message().into()))?;
        let refuse = |was: &str, is: &str| {
            let dir = dir.display();
            Err(Error::Config(format!(
                "data directory {dir} was made for {was}, but the configuration says {is}"
            )))
        };
        if identity.name != self.me().name && self.is_group() {
            return refuse(&format!("member {}", identity.name), &format!("member {}", self.me().name));
        }
        let alone = |list: &str| !list.contains(',');
        if identity.members != members && (!alone(&identity.members) || self.is_group()) {
            return refuse(&identity.members, &members);
        }
        self.incarnation =
            u64::from_str_radix(&identity.incarnation, 16).map_err(|e| corrupt(e.to_string()))?;
        Ok(())
    }

    fn create(&mut self, path: &Path, members: String) -> Result<()> {
        if self.is_group() && path.parent().is_some_and(|dir| dir.join("raft").is_dir()) {
            let dir = path.parent().unwrap_or(path).display();
            return Err(Error::Config(format!(
                "data directory {dir} was made by a placement driver without other members, but the \
                 configuration says {members}"
            )));
        }
        self.incarnation = rand::random::<u64>().max(1);
        let identity = Identity {
            name: self.me().name.clone(),
            members,
            incarnation: format!("{:016x}", self.incarnation),
        };
        let text = toml::to_string(&identity).map_err(|e| Error::Config(e.to_string()))?;
        let temporary = path.with_extension("tmp");
        std::fs::write(&temporary, text)
            .and_then(|()| std::fs::File::open(&temporary)?.sync_all())
            .and_then(|()| std::fs::rename(&temporary, path))
            .map_err(Error::io(path))
    }

    /// This member.
    #[must_use]
    pub fn me(&self) -> &Member {
        &self.all[self.own]
    }

    /// All members by name.
    #[must_use]
    pub fn all(&self) -> &[Member] {
        &self.all
    }

    /// The other members.
    pub fn others(&self) -> impl Iterator<Item = &Member> {
        let own = self.me().raft_id;
        self.all.iter().filter(move |member| member.raft_id != own)
    }

    /// A member by its raft id.
    #[must_use]
    pub fn by_raft_id(&self, raft_id: u64) -> Option<&Member> {
        self.all.iter().find(|member| member.raft_id == raft_id)
    }

    /// Whether there is more than one.
    #[must_use]
    pub fn is_group(&self) -> bool {
        self.all.len() > 1
    }

    /// As written in a configuration, sorted by name.
    #[must_use]
    pub fn list(&self) -> String {
        let each: Vec<String> = self.all.iter().map(|m| format!("{}={}", m.name, m.peer_url)).collect();
        each.join(",")
    }

    /// Why another member is refused; `cluster_id` is ours (0: not known yet), `known` what is recorded of it.
    pub fn check(
        &self,
        other: &Introduction,
        cluster_id: u64,
        known: Option<&MemberRecord>,
    ) -> std::result::Result<(), String> {
        let (me, name) = (&self.me().name, &other.name);
        let list = self.list();
        if other.members != list {
            return Err(format!("member {name} has initial-cluster {}, but {me} has {list}", other.members));
        }
        if name == me || !self.all.iter().any(|member| member.name == *name) {
            return Err(format!("{name} introduced itself to {me}: two members have one name"));
        }
        if cluster_id != 0 && other.cluster_id != 0 && other.cluster_id != cluster_id {
            return Err(format!(
                "member {name} belongs to cluster {}, but {me} belongs to cluster {cluster_id}",
                other.cluster_id
            ));
        }
        match known {
            Some(known) if known.incarnation != other.incarnation => Err(format!(
                "member {name} has another data directory than before: a member that lost its directory cannot \
                 come back; restore it from a copy"
            )),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(name: &str, members: &str) -> Config {
        Config { name: name.into(), initial_cluster: members.into(), ..Config::default() }
    }

    const THREE: &str = "c=http://h3:1,a=http://h1:1,b=http://h2:1";

    #[test]
    fn lists_are_sorted_and_strict() {
        let members = Members::parse(&config("b", THREE)).unwrap();
        assert_eq!((members.me().raft_id, members.is_group()), (2, true));
        assert_eq!(members.list(), "a=http://h1:1,b=http://h2:1,c=http://h3:1");
        assert_eq!(members.others().map(|m| m.raft_id).collect::<Vec<_>>(), [1, 3]);
        assert!(!Members::parse(&config("x", "")).unwrap().is_group());
        for (name, bad, word) in [
            ("a", "a=http://h1:1,b=http://h2:1", "1, 3 or 5"),
            ("d", THREE, "does not name"),
            ("a", "a=h1:1,b=http://h2:1,c=http://h3:1", "http://host:port"),
            ("a", "a=http://h:1,b=http://h:1,c=http://h3:1", "twice"),
            ("a", "a", "must read"),
        ] {
            let error = Members::parse(&config(name, bad)).unwrap_err().to_string();
            assert!(error.contains(word), "{bad}: {error}");
        }
    }

    #[test]
    fn a_directory_is_one_members() {
        let dir = tempfile::tempdir().unwrap();
        let mut first = Members::parse(&config("b", THREE)).unwrap();
        first.claim(dir.path()).unwrap();
        let mut again = Members::parse(&config("b", THREE)).unwrap();
        again.claim(dir.path()).unwrap();
        assert_eq!(again, first);
        let mut other = Members::parse(&config("a", THREE)).unwrap();
        assert!(other.claim(dir.path()).unwrap_err().to_string().contains("member b"));
        let moved = "a=http://h1:1,b=http://h2:1,c=http://h4:1";
        let mut other = Members::parse(&config("b", moved)).unwrap();
        assert!(other.claim(dir.path()).unwrap_err().to_string().contains("h4"));
    }

    #[test]
    fn introductions_that_disagree_are_refused() {
        let members = Members::parse(&config("a", THREE)).unwrap();
        let good = Introduction {
            name: "b".into(),
            members: members.list(),
            cluster_id: 7,
            incarnation: 1,
            ..Default::default()
        };
        let known = MemberRecord { incarnation: 1, ..Default::default() };
        assert_eq!(members.check(&good, 7, Some(&known)), Ok(()));
        assert_eq!(members.check(&good, 0, None), Ok(()));
        let refused = |other: Introduction| members.check(&other, 7, Some(&known)).unwrap_err();
        assert!(
            refused(Introduction { members: "b=http://x:1".into(), ..good.clone() })
                .contains("initial-cluster")
        );
        assert!(refused(Introduction { cluster_id: 8, ..good.clone() }).contains("cluster 8"));
        assert!(refused(Introduction { incarnation: 2, ..good.clone() }).contains("lost its directory"));
        assert!(refused(Introduction { name: "a".into(), ..good }).contains("one name"));
    }
}
