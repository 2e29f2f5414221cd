//! How many timestamps a client gets per second. A measurement: it prints, and asserts only that time goes forward.

use std::time::{Duration, Instant};

use crate::support::*;
use rutile_proto::ids::Timestamp;
use rutile_proto::pdpb::pd_client::PdClient;
use rutile_proto::pdpb::{RequestHeader, TsoRequest};
use tokio_stream::wrappers::ReceiverStream;

const SPAN: Duration = Duration::from_secs(3);
const CALLERS: [usize; 3] = [1, 16, 256];

/// Runs `callers` tasks that ask again and again; prints answers and timestamps per second.
async fn measure<F: Future<Output = u64> + Send + 'static>(
    what: &str,
    callers: usize,
    caller: impl Fn(Instant) -> F,
) {
    let begun = Instant::now();
    let tasks: Vec<_> = (0..callers).map(|_| tokio::spawn(caller(begun + SPAN))).collect();
    let mut count = 0;
    for task in tasks {
        count += task.await.unwrap();
    }
    println!("{what}, {callers} callers: {:.0}/s", count as f64 / begun.elapsed().as_secs_f64());
}

#[ignore = "a measurement of some seconds"]
#[tokio::test(flavor = "multi_thread")]
async fn timestamps_per_second() {
    let playground = playground(|_| ()).await;
    for callers in CALLERS {
        for (transport, client) in clients(&playground).await {
            measure(&format!("timestamps of the client, {transport}, batched"), callers, |until| {
                let client = client.clone();
                async move {
                    let (mut count, mut last) = (0, Timestamp::ZERO);
                    while Instant::now() < until {
                        let next = client.timestamp().await.unwrap();
                        assert!(next > last);
                        (count, last) = (count + 1, next);
                    }
                    count
                }
            })
            .await;
        }
    }
    let address = format!("http://{}", playground.addresses().pd);
    let cluster_id = playground.client().cluster_id().get();
    for size in [1, 64, 10_000] {
        for callers in CALLERS {
            measure(&format!("requests for {size} on a stream each"), callers, |until| {
                let address = address.clone();
                async move {
                    let mut pd = PdClient::connect(address).await.unwrap();
                    let (tx, rx) = tokio::sync::mpsc::channel(1);
                    let mut answers = pd.tso(ReceiverStream::new(rx)).await.unwrap().into_inner();
                    let (mut count, mut last) = (0, Timestamp::ZERO);
                    while Instant::now() < until {
                        let header = Some(RequestHeader { cluster_id, ..Default::default() });
                        tx.send(TsoRequest { header, count: size, ..Default::default() }).await.unwrap();
                        let answer = answers.message().await.unwrap().unwrap();
                        let next = Timestamp::from(&answer.timestamp.unwrap());
                        assert!(next.0 >= last.0 + u64::from(size) && answer.count == size);
                        (count, last) = (count + 1, next);
                    }
                    count
                }
            })
            .await;
        }
    }
    playground.shutdown().await;
}
