//! The base's weights are the same bits after any traffic, and memory grows by the adapters alone.
use crate::running::{Running, rescaled};
use futures_util::future::join_all;

const ADAPTERS: [&str; 3] = ["rate", "headline", "extract"];
const PROMPT: &str = "Paul Okafor found a lost cat in Bergen on Sunday.";

#[tokio::test(flavor = "multi_thread")]
async fn no_bit_of_the_base_changes_through_loads_unloads_and_requests() {
    for precision in ["f32", "bf16"] {
        let server = Running::start(&["--precision", precision, "--adapter-slots", "2"]).await;
        let before = server.base.fingerprint().expect("host memory");
        let answer = server.chat(lorad::demo::NAME, PROMPT, 24).await;
        for round in 1..=3 {
            for name in ADAPTERS {
                let (config, weights) = rescaled(name, 8 * round);
                assert!(server.put(&format!("{name}-copy"), config, weights).await.0.is_success());
            }
            let names = ADAPTERS.map(|name| format!("{name}-copy"));
            let asked = names.iter().chain(&names).map(|name| server.chat(name, PROMPT, 16));
            join_all(asked).await;
            assert!(server.delete(&names[round as usize - 1]).await.is_success());
        }
        assert_eq!(server.base.fingerprint().expect("host memory"), before, "{precision}");
        assert_eq!(server.chat(lorad::demo::NAME, PROMPT, 24).await, answer, "{precision}");
        server.stop().await;
    }
}

/// Resident bytes of this process.
#[cfg(target_os = "linux")]
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("a Linux kernel");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("kB") * 1024
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn memory_grows_by_the_adapters_and_not_by_copies_of_the_base() {
    const COUNT: u64 = 40;
    let server = Running::start(&[]).await;
    let (config, weights) = rescaled("extract", 1);
    let (_, report) = server.put("first", config, weights).await;
    let each = report["bytes"].as_u64().expect("the report says the adapter's bytes");
    server.chat("first", PROMPT, 4).await;
    let before = resident();
    for alpha in 2..2 + COUNT {
        let (config, weights) = rescaled("extract", alpha);
        let name = format!("extract-{alpha}");
        assert!(server.put(&name, config, weights).await.0.is_success());
        server.chat(&name, PROMPT, 4).await;
    }
    let grown = resident().saturating_sub(before);
    // The other tests of this process share its memory, so the slack is wide; copies of the base, merged or
    // not, would be several times beyond it.
    let base = server.base.bytes() as u64;
    let bound = 2 * COUNT * each + 4 * base + (24 << 20);
    assert!(grown < bound && bound < COUNT * base, "{grown} bytes for {COUNT} times {each}");
    server.stop().await;
}
