//! What callers and the task of hosted work do to each other.

use std::{
    future::poll_fn,
    sync::{Barrier, atomic::AtomicUsize, mpsc},
    time::Duration,
};

use tokio::sync::{mpsc as channel, oneshot};

use super::*;

/// Work that answers each number with the next one, and says how often it was polled.
fn counting(
    polls: &Arc<AtomicUsize>,
) -> (channel::Sender<(u32, oneshot::Sender<u32>)>, Arc<Hosted>) {
    let (sender, mut asked) = channel::channel::<(u32, oneshot::Sender<u32>)>(8);
    let polls = Arc::clone(polls);
    let mut work = Box::pin(async move {
        while let Some((number, answer)) = asked.recv().await {
            let _ = answer.send(number + 1);
        }
    });
    let counted = poll_fn(move |cx| {
        polls.fetch_add(1, SeqCst);
        work.as_mut().poll(cx)
    });
    (sender, Hosted::new(Box::pin(counted)))
}

#[tokio::test]
async fn a_caller_has_its_answer_when_its_visit_ends() {
    let polls = Arc::default();
    let (sender, hosted) = counting(&polls);
    let task = tokio::spawn(hosted.task());
    tokio::task::yield_now().await;
    assert_eq!(polls.load(SeqCst), 1);
    for number in 0..10 {
        let (answer, mut answered) = oneshot::channel();
        hosted
            .visit(|| sender.try_send((number, answer)))
            .expect("room");
        assert_eq!(answered.try_recv(), Ok(number + 1));
    }
    // Each visit was one poll, and woke no task.
    tokio::task::yield_now().await;
    assert_eq!(polls.load(SeqCst), 11);
    drop(sender);
    task.await.expect("it ends with its work");
}

#[tokio::test]
async fn what_comes_without_a_visit_wakes_the_task() {
    let (sender, hosted) = counting(&Arc::default());
    let task = tokio::spawn(hosted.task());
    for number in 0..10 {
        let (answer, answered) = oneshot::channel();
        sender.send((number, answer)).await.expect("it is taken");
        assert_eq!(answered.await, Ok(number + 1));
    }
    task.abort();
    assert!(task.await.is_err());
    assert!(sender.is_closed(), "the work has gone with its task");
}

/// Work that is not done after one poll goes on in its task.
#[tokio::test]
async fn what_a_visit_leaves_the_task_does() {
    let (sender, mut asked) = channel::channel::<oneshot::Sender<()>>(1);
    let hosted = Hosted::new(Box::pin(async move {
        while let Some(answer) = asked.recv().await {
            tokio::task::yield_now().await;
            let _ = answer.send(());
        }
    }));
    let _task = tokio::spawn(hosted.task());
    tokio::task::yield_now().await;
    let (answer, mut answered) = oneshot::channel();
    hosted.visit(|| sender.try_send(answer)).expect("room");
    assert!(answered.try_recv().is_err());
    answered.await.expect("an answer");
}

#[tokio::test]
async fn work_that_ends_is_gone_for_those_that_come() {
    let (sender, hosted) = counting(&Arc::default());
    let task = tokio::spawn(hosted.task());
    hosted.end();
    assert!(sender.is_closed());
    let (answer, _) = oneshot::channel();
    assert!(hosted.visit(|| sender.try_send((1, answer))).is_err());
    task.await.expect("a task without work ends");
}

/// What ends the work while it is polled leaves the drop to what polls it.
#[test]
fn work_that_is_polled_is_dropped_after_that() {
    let (begun, is_begun) = mpsc::sync_channel(1);
    let gate = Arc::new(Barrier::new(2));
    let (at_gate, token) = (Arc::clone(&gate), Arc::new(()));
    let held = Arc::downgrade(&token);
    let hosted = Hosted::new(Box::pin(poll_fn(move |_| {
        let _token = &token;
        let _ = begun.send(());
        at_gate.wait();
        Poll::Pending
    })));
    let other = Arc::clone(&hosted);
    let visitor = std::thread::spawn(move || other.visit(|| ()));
    is_begun
        .recv_timeout(Duration::from_secs(10))
        .expect("a visit");
    hosted.end();
    assert!(held.upgrade().is_some());
    gate.wait();
    visitor.join().expect("it ends");
    assert!(held.upgrade().is_none());
}

/// Many callers on many threads, some of which visit: none waits for ever.
#[test]
fn no_wake_up_is_lost() {
    let runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = { runtime }.worker_threads(4).build().expect("threads");
    runtime.block_on(async {
        let (sender, hosted) = counting(&Arc::default());
        let _task = tokio::spawn(hosted.task());
        let callers: Vec<_> = (0..8)
            .map(|caller| {
                let (sender, hosted) = (sender.clone(), Arc::clone(&hosted));
                tokio::spawn(async move {
                    for number in 0..5_000 {
                        let (answer, answered) = oneshot::channel();
                        let asked = (number, answer);
                        let left = match caller % 2 {
                            0 => hosted.visit(|| sender.try_send(asked)).err(),
                            _ => sender.try_send(asked).err(),
                        };
                        if let Some(full) = left {
                            sender.send(full.into_inner()).await.expect("it is taken");
                        }
                        assert_eq!(answered.await, Ok(number + 1));
                    }
                })
            })
            .collect();
        for caller in callers {
            caller.await.expect("it is answered");
        }
    });
}
