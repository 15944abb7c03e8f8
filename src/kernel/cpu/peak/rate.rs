//! How often threads can repeat something.
use std::{
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

/// How long one measurement takes.
const WINDOW: Duration = Duration::from_millis(150);

/// Measurements; the best counts, because whatever disturbs only slows.
const TRIES: usize = 3;

/// Calls a second of all threads together; each makes its own call.
pub(super) fn calls_per_second<C: FnMut()>(threads: usize, make: impl Fn() -> C + Sync) -> f64 {
    let all_ready = Barrier::new(threads);
    let one = || {
        let mut call = make();
        (0..TRIES)
            .map(|_| {
                all_ready.wait();
                repeat(&mut call)
            })
            .collect::<Vec<f64>>()
    };
    let rates: Vec<Vec<f64>> = thread::scope(|scope| {
        let running: Vec<_> = (1..threads).map(|_| scope.spawn(one)).collect();
        let own = one();
        let others = running.into_iter().map(|thread| thread.join().expect("loops do not panic"));
        others.chain([own]).collect()
    });
    let sums = (0..TRIES).map(|attempt| rates.iter().map(|rate| rate[attempt]).sum());
    sums.fold(0.0, f64::max)
}

/// Calls a second of this thread.
fn repeat(call: &mut impl FnMut()) -> f64 {
    let start = Instant::now();
    let mut calls = 0_u32;
    loop {
        call();
        calls += 1;
        let elapsed = start.elapsed();
        if elapsed >= WINDOW {
            return f64::from(calls) / elapsed.as_secs_f64();
        }
    }
}
