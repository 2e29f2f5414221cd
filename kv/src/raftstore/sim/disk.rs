//! The disks of a simulation: what a crash leaves of log files, and what a thread must not remember of them.

use raft::eraftpb::Entry;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::world::World;
use crate::engine::RaftLog;
use crate::engine::lossy_fs::LossyFs;

/// A raft log that is no store's. The log's library keeps the block a thread read last, by the place in the files; here one thread is
/// all stores, whose files have the same names, and their next lives.
pub(super) struct Blocks {
    log: RaftLog,
    _dir: tempfile::TempDir,
}

impl Blocks {
    /// The place of the block that is read is one where no store's log has a block.
    const APART_BYTES: usize = 1 << 20;

    pub(super) fn new(config: &crate::config::RaftLogConfig) -> Self {
        let dir = temporary_dir();
        let log = RaftLog::open(dir.path(), config).expect("a log opens");
        for (index, size) in [(1, Self::APART_BYTES), (2, 1)] {
            let mut batch = log.batch();
            let mut noise = StdRng::seed_from_u64(0);
            let data: Vec<u8> = (0..size).map(|_| noise.random()).collect();
            let entry = Entry { index, term: 1, data: data.into(), ..Default::default() };
            batch.append(1, &[entry]).expect("an entry is appended");
            log.write(&mut batch, false).expect("a log can be written");
        }
        Self { log, _dir: dir }
    }

    /// As if the thread had read nothing of any store.
    pub(super) fn forget(&self) {
        self.log.entry(1, 2).expect("the log can be read");
    }
}

pub(super) fn temporary_dir() -> tempfile::TempDir {
    let memory = std::path::Path::new("/dev/shm");
    let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    dir.expect("a temporary directory")
}

impl World {
    pub(super) fn switch_off(&mut self, fs: &LossyFs) {
        let rng = &mut self.rng;
        fs.crash(|n| match rng.random_range(0..3) {
            0 => 0,
            1 => n,
            _ => rng.random_range(0..=n),
        })
        .expect("log files can be written");
    }
}
