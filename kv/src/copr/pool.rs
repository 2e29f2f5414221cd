//! Threads for plans, so that a large scan does not hold up the threads that serve point reads.
//!
//! Jobs wait in one queue per priority. A job runs one page, which is bounded in time: what is waiting gets its turn between the
//! pages of a large scan.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex};
use rutile_proto::kvrpcpb::CommandPri;

/// Jobs waiting at most; beyond it callers are told to come back.
const QUEUE_LEN_MAX: usize = 4096;
/// Of so many jobs taken, one is of the lowest priority that waits, so that nothing waits for ever.
const TURNS_PER_LOWEST: u64 = 16;
/// Deeply nested expressions are evaluated recursively.
const STACK_BYTES: usize = 8 << 20;

type Job = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Queues {
    /// High, normal, low.
    waiting: [VecDeque<Job>; 3],
    turn: u64,
    stopped: bool,
}

impl Queues {
    fn take(&mut self) -> Option<Job> {
        self.turn += 1;
        if self.turn.is_multiple_of(TURNS_PER_LOWEST) {
            return self.waiting.iter_mut().rev().find_map(VecDeque::pop_front);
        }
        self.waiting.iter_mut().find_map(VecDeque::pop_front)
    }

    fn len(&self) -> usize {
        self.waiting.iter().map(VecDeque::len).sum()
    }
}

#[derive(Default)]
struct Shared {
    queues: Mutex<Queues>,
    ready: Condvar,
}

/// A fixed number of threads. They end when the pool is dropped, after the jobs they have begun.
pub struct Pool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

/// Too much is waiting already.
#[derive(Debug)]
pub struct Full;

impl Pool {
    /// So many threads.
    pub fn start(threads: usize) -> std::io::Result<Pool> {
        let shared = Arc::<Shared>::default();
        let spawn = |number: usize| {
            let shared = Arc::clone(&shared);
            let builder = std::thread::Builder::new().name(format!("copr-{number}")).stack_size(STACK_BYTES);
            builder.spawn(move || work(&shared))
        };
        let threads = (0..threads).map(spawn).collect::<Result<_, _>>()?;
        Ok(Pool { shared, threads })
    }

    /// Queues a job.
    pub fn run(&self, priority: CommandPri, job: impl FnOnce() + Send + 'static) -> Result<(), Full> {
        let queue = match priority {
            CommandPri::High => 0,
            CommandPri::Normal => 1,
            CommandPri::Low => 2,
        };
        let mut queues = self.shared.queues.lock();
        if queues.len() >= QUEUE_LEN_MAX {
            return Err(Full);
        }
        queues.waiting[queue].push_back(Box::new(job));
        drop(queues);
        self.shared.ready.notify_one();
        Ok(())
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.queues.lock().stopped = true;
        self.shared.ready.notify_all();
        let own = std::thread::current().id();
        for thread in self.threads.drain(..) {
            // The last owner may be a job.
            if thread.thread().id() != own {
                let _ = thread.join();
            }
        }
    }
}

fn work(shared: &Shared) {
    loop {
        let mut queues = shared.queues.lock();
        let job = loop {
            if queues.stopped {
                return;
            }
            match queues.take() {
                Some(job) => break job,
                None => shared.ready.wait(&mut queues),
            }
        };
        drop(queues);
        job();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn the_urgent_comes_first_and_the_rest_too() {
        let pool = Pool::start(1).unwrap();
        let (begun, wait_begun) = mpsc::sync_channel(8);
        let (release, released) = mpsc::sync_channel::<()>(1);
        let hold = move || {
            begun.send(()).unwrap();
            released.recv().unwrap();
        };
        pool.run(CommandPri::Normal, hold).unwrap();
        wait_begun.recv().unwrap();
        let (done, order) = mpsc::sync_channel(8);
        for priority in [CommandPri::Low, CommandPri::Normal, CommandPri::High] {
            let done = done.clone();
            pool.run(priority, move || done.send(priority).unwrap()).unwrap();
        }
        release.send(()).unwrap();
        let order: Vec<_> = order.iter().take(3).collect();
        assert_eq!(order, [CommandPri::High, CommandPri::Normal, CommandPri::Low]);
    }

    #[test]
    fn the_lowest_gets_its_turn() {
        let mut queues = Queues::default();
        let ran = Arc::new(Mutex::new(Vec::new()));
        for queue in [0, 2] {
            for _ in 0..TURNS_PER_LOWEST {
                let ran = Arc::clone(&ran);
                queues.waiting[queue].push_back(Box::new(move || ran.lock().push(queue)));
            }
        }
        for _ in 0..TURNS_PER_LOWEST {
            queues.take().unwrap()();
        }
        assert_eq!(ran.lock().iter().filter(|queue| **queue == 2).count(), 1);
    }
}
