//! However the bytes are split into reads, the peer receives the same answers.

use super::*;

/// Valid, pipelined and invalid requests.
fn corpus() -> Vec<Vec<u8>> {
    let mut corpus: Vec<Vec<u8>> = [
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "\r\n\r\nGET /1 HTTP/1.1\r\nHost: a\r\n\r\n\r\nHEAD /2 HTTP/1.1\r\nHost: a\r\n\r\nOPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /1 HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /2 HTTP/1.0\r\n\r\nGET /never HTTP/1.0\r\n\r\n",
        "GET /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhelloGET /never HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /1 HTTP/1.1\r\nHost: a\r\n\r\nBREW / HTTP/1.1\r\nHost: a\r\n\r\nGET /never HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /wait HTTP/1.1\r\nHost: a\r\n\r\nGET /behind HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /events HTTP/1.1\r\nHost: a\r\n\r\nGET /never HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /big?70000 HTTP/1.1\r\nHost: a\r\n\r\nGET /big?70000 HTTP/1.1\r\nHost: a\r\n\r\nGET /3 HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /half HTTP/1.1\r\nHost: a\r\n",
        "PROXY TCP4 1.1.1.1 2.2.2.2 1 2\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "GET /\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nA: b\r\n c\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nA: \0\nB: c\r\n\r\n",
        "\r\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "\r",
        "GET / HTTP/1.1\r",
    ]
    .iter()
    .map(|text| text.as_bytes().to_vec())
    .collect();
    corpus.push(b"\x16\x03\x01\x02\x00".to_vec());
    let fields = "A: b\r\n".repeat(140);
    corpus.push(format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n").into_bytes());
    corpus.extend(seeds().into_iter().map(|(_, bytes)| bytes).filter(|bytes| bytes.len() < 1024));
    corpus
}

/// Requests that are too long to try every split.
fn long() -> Vec<Vec<u8>> {
    let many = "GET /x HTTP/1.1\r\nHost: a\r\n\r\n".repeat(500);
    [
        format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(8177)),
        format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(8179)),
        format!("GET / HTTP/1.1\r\nHost: a\r\nA: {}\r\n\r\n", "a".repeat(16384 - 32)),
        format!("GET / HTTP/1.1\r\nHost: a\r\nA: {}\r\n\r\n", "a".repeat(16384 - 31)),
        format!("GET / HTTP/1.1\r\nHost: a\r\nA: {}\0\r\n\r\n", "a".repeat(16384 - 31)),
        "A".repeat(8200),
        many,
    ]
    .map(String::into_bytes)
    .to_vec()
}

/// The seeds of the fuzzer, which the published crate does not include.
fn seeds() -> Vec<(String, Vec<u8>)> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/seeds/http");
    let mut seeds = Vec::new();
    let Ok(entries) = std::fs::read_dir(folder) else { return seeds };
    for entry in entries {
        let path = entry.unwrap().path();
        seeds.push((path.display().to_string(), std::fs::read(&path).unwrap()));
    }
    assert!(seeds.len() >= 10, "{folder}");
    seeds
}

/// A generator of test data with a fixed start (xorshift64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(limit).unwrap()).unwrap()
    }
}

fn show(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.get(..bytes.len().min(300)).unwrap()).escape_debug().to_string()
}

#[test]
fn the_boundaries_of_reads_do_not_matter() {
    for bytes in corpus() {
        let whole = ask(&bytes);
        assert_eq!(talk(bytes.chunks(1)), whole, "byte by byte: {}", show(&bytes));
        for cut in 1..bytes.len() {
            let (one, two) = bytes.split_at(cut);
            assert_eq!(talk([one, two]), whole, "cut at {cut}: {}", show(&bytes));
        }
    }
}

#[test]
fn the_boundaries_of_reads_do_not_matter_for_long_requests() {
    for bytes in long() {
        let whole = ask(&bytes);
        assert_eq!(talk(bytes.chunks(1)), whole, "byte by byte: {}", show(&bytes));
        let near = |limit: usize| limit.saturating_sub(20)..(limit + 20).min(bytes.len());
        for cut in (1..bytes.len()).step_by(509).chain(near(8192)).chain(near(16384)) {
            let (one, two) = bytes.split_at(cut);
            assert_eq!(talk([one, two]), whole, "cut at {cut}: {}", show(&bytes));
        }
    }
}

#[test]
fn read_boundaries_do_not_matter_for_damaged_requests() {
    let (mut dice, corpus) = (Dice(0x9e37_79b9_7f4a_7c15), corpus());
    const NASTY: &[u8] = b"\r\n \t:\0#*/A1\x7f\x80\xff,;[]";
    for _ in 0..20_000 {
        let mut bytes = corpus[dice.below(corpus.len())].clone();
        for _ in 0..dice.below(4) {
            let at = dice.below(bytes.len());
            match dice.below(3) {
                0 => bytes[at] = NASTY[dice.below(NASTY.len())],
                1 => bytes.insert(at, NASTY[dice.below(NASTY.len())]),
                _ => drop(bytes.remove(at)),
            }
            if bytes.is_empty() {
                bytes.push(b'\r');
            }
        }
        let mut pieces = Vec::new();
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let (piece, behind) = rest.split_at(1 + dice.below(rest.len().min(40)));
            pieces.push(piece);
            rest = behind;
        }
        assert_eq!(talk(pieces.iter().copied()), ask(&bytes), "{pieces:?}");
    }
}

#[test]
fn each_fuzzer_seed_gets_complete_answers() {
    for (name, bytes) in seeds() {
        let (seen, _) = ask(&bytes);
        for status in statuses(&seen) {
            let known = ["200", "204", "400", "405", "414", "431", "501", "505"].contains(&status);
            assert!(known, "{name}: {seen}");
        }
        assert_eq!(talk(bytes.chunks(1)).0, seen, "{name}");
    }
}

#[test]
fn earlier_requests_do_not_matter() {
    let clock = Clock::new();
    let answer = |bytes: &[u8], head_cache: &mut HeadCache, out: &mut Out| {
        let (mut handler, mut conn) = (Echo::default(), Conn::new(clock.at(0.0)));
        conn.receive(clock.at(0.0), bytes, head_cache, &mut handler, out);
        (std::mem::take(&mut out.bytes), conn.is_held(), conn.wants(), conn.is_done())
    };
    let mut corpus = corpus();
    for words in [
        "GET /1 HTTP/1.1\r\nHost: a\r\n\r\n",
        "HEAD /1 HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /1?a HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /1? HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /1 HTTP/1.1\r\nHost: a\r\nAccept: b\r\n\r\n",
        "GET /1 HTTP/1.1\r\nHost: a\r\nX: \u{e9}\r\n\r\n",
        "GET http://a HTTP/1.1\r\nHost: a\r\n\r\n",
        "OPTIONS http://a HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /1 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
        "GET /1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        "GET /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n",
    ] {
        corpus.push(words.as_bytes().to_vec());
    }
    for bytes in &corpus {
        let alone = answer(bytes, &mut HeadCache::default(), &mut Out::new());
        for before in &corpus {
            let (mut head_cache, mut out) = (HeadCache::default(), Out::new());
            answer(before, &mut head_cache, &mut out);
            for _ in 0..2 {
                assert_eq!(
                    answer(bytes, &mut head_cache, &mut out),
                    alone,
                    "{}",
                    String::from_utf8_lossy(bytes)
                );
            }
        }
    }
}
