//! Requests that wait for the results of probes.

use super::life::Talk;
use super::*;

#[test]
fn a_request_waits_for_results_and_those_behind_it_too() {
    let mut talk = Talk::new();
    assert_eq!(bodies(&talk.get(0.0, &["/a", "/probed", "/b"])), ["Get /a None"]);
    assert!(talk.conn.is_held() && !talk.conn.is_deferred());
    assert_eq!((talk.deadline(), talk.conn.wants()), (Some(5.0), Interest { read: true, write: false }));
    // A change of state that brings no result does not prolong the wait.
    assert_eq!((talk.resume(4.0), talk.deadline()), (String::new(), Some(5.0)));
    assert_eq!(talk.get(4.0, &["/c"]), "");
    talk.handler.probed = true;
    assert_eq!(bodies(&talk.resume(4.5)), ["Get /probed None", "Get /b None", "Get /c None"]);
    assert_eq!((talk.deadline(), talk.conn.owns()), (None, 0));
}

#[test]
fn a_request_without_results_is_answered_at_its_deadline() {
    let mut talk = Talk::new();
    talk.get(0.0, &["/probed"]);
    assert_eq!(talk.expire(4.9), "");
    assert_eq!(bodies(&talk.expire(5.0)), ["Get /probed None"]);
    assert_eq!(talk.conn.wants(), Interest { read: true, write: false });
}

#[test]
fn a_request_that_waits_is_answered_when_kapo_closes() {
    let mut talk = Talk::new();
    talk.get(0.0, &["/probed"]);
    let now = talk.clock.at(1.0);
    talk.conn.give_up_waiting(now, &mut talk.head_cache, &mut talk.handler, &mut talk.out);
    assert_eq!(bodies(&talk.take()), ["Get /probed None"]);
}

#[test]
fn a_half_closed_peer_still_gets_its_answer() {
    let mut talk = Talk::new();
    talk.get(0.0, &["/probed"]);
    talk.conn.eof(&mut talk.out);
    assert_eq!((talk.conn.is_done(), talk.conn.wants().read), (false, false));
    talk.handler.probed = true;
    assert_eq!(bodies(&talk.resume(1.0)), ["Get /probed None"]);
    assert!(talk.conn.is_done());
}
