//! Tests of states, order and output.

use std::time::{Duration, UNIX_EPOCH};

use super::export::{METRICS, UP, file_sd, json, prom, through_fleet};
use super::table::TableStyle;
use super::*;

fn document(members: &str) -> String {
    format!("[{{\"Command\":\"/bin/\\u001bx\",{members}}}]")
}

fn of(file: &[u8], members: &str) -> Instance {
    let mut instance = Instance::new(file, 1);
    instance.listener = Some((7, 1000));
    instance.answered(document(members).as_bytes());
    instance
}

const RUNNING: &str = r#""Status":"running","Mode":"supervise","Ready":true,"Restarts":2,"Pid":9,"StartTime":"2026-11-27T10:00:00Z","ExpiresAt":"2026-11-27T12:00:00Z","LastRun":{"EndTime":"2026-11-27T09:59:55Z","ExitCode":0,"Reason":"success"}"#;
const FAILING: &str = r#""Status":"stopped","Mode":"supervise","Reason":"exit-code","ExitCode":3,"StartTime":"2026-11-27T10:00:00Z","EndTime":"2026-11-27T10:00:01Z","NextStart":"2026-11-27T10:00:31Z""#;

fn three() -> Vec<Instance> {
    let dead = Instance { state: InstanceState::Dead, ..Instance::new(b"a\n\xff.sock", 2) };
    let mut all = vec![of(b"w.sock", RUNNING), dead, of(b"w", FAILING)];
    names::assign(&mut all);
    sort(&mut all, ListOrder::State);
    all
}

#[test]
fn each_document_has_its_state() {
    for (members, state) in [
        (RUNNING, InstanceState::Running),
        (FAILING, InstanceState::Failing),
        (r#""Status":"running","Flapping":true,"Ready":true"#, InstanceState::Flapping),
        (r#""Status":"running","Ready":false"#, InstanceState::Unready),
        (r#""Status":"running","Ready":false,"StopSignalFrom":{}"#, InstanceState::Stopping),
        (r#""Status":"stopped","Reason":"""#, InstanceState::Starting),
        (r#""Status":"stopped","Mode":"run","Reason":"success""#, InstanceState::Done),
        (r#""Status":"stopped","Mode":"supervise","Reason":"success""#, InstanceState::Pausing),
        (r#""Status":"killed","Mode":"run","Reason":"signal""#, InstanceState::Failed),
        (r#""Status":"running","Mode":"watch","Flapping":true"#, InstanceState::Running),
        (r#""Status":"stopped","Mode":"watch","Reason":"success""#, InstanceState::Gone),
    ] {
        let instance = of(b"x", members);
        assert_eq!((instance.state, instance.answers), (state, true), "{members}");
    }
    let mut other = Instance::new(b"x", 1);
    let watch = |status| format!("{{\"Command\":\"c\",\"Status\":\"{status}\",\"Mode\":\"watch\"}}");
    other.answered(format!("[{},{}]", watch("running"), watch("stopped")).as_bytes());
    assert_eq!(other.state, InstanceState::Gone, "a name without a process");
    let mut other = Instance::new(b"x", 1);
    for text in ["", "<html>", "[]", "{}", "[{\"Command\":1}]", "null"] {
        other.answered(text.as_bytes());
        assert_eq!((other.state, other.answers), (InstanceState::Foreign, false), "{text}");
    }
}

#[test]
fn trouble_comes_first_and_decides_about_the_exit_code() {
    let mut all = three();
    let order = |all: &[Instance]| all.iter().map(|i| i.name.clone()).collect::<Vec<_>>().join(" ");
    assert_eq!(order(&all), "w a\\n\\udcff w.sock");
    for (by, names) in [
        (ListOrder::Name, "a\\n\\udcff w w.sock"),
        (ListOrder::Start, "w w.sock a\\n\\udcff"),
        (ListOrder::Restarts, "w.sock a\\n\\udcff w"),
    ] {
        sort(&mut all, by);
        assert_eq!(order(&all), names);
    }
    assert_eq!(exit_code(&all), EXIT_UNHEALTHY);
    all.retain(|instance| instance.name == "w.sock");
    assert_eq!((exit_code(&all), exit_code(&[])), (0, EXIT_NO_ANSWER));
}

#[test]
fn the_newest_start_comes_first_among_equal_states() {
    let newer = RUNNING.replace("T10:00", "T11:00");
    let mut all = vec![of(b"a", RUNNING), of(b"b", &newer), of(b"c", RUNNING)];
    sort(&mut all, ListOrder::State);
    assert_eq!(all.iter().map(|i| i.file.as_slice()).collect::<Vec<_>>(), [b"b", b"a", b"c"]);
}

fn style(wide: bool, width: Option<usize>, colour: bool) -> TableStyle<'static> {
    let now = Some(UNIX_EPOCH + Duration::from_secs(1_795_773_601)); // 2026-11-27T10:00:01Z
    TableStyle { wide, width, colour, now, passwd: b"root:x:0:0::/:\nann\x1b:x:1000:1000::/:\n" }
}

#[test]
fn the_table_is_aligned_and_safe_for_a_terminal() {
    let mut all = three();
    all[2].facts.memory = Some(2 << 20);
    let table = style(true, None, false).table(&all);
    let expected = "\
NAME       STATE    SINCE  RESTARTS  LAST     NEXT               PID  OWNER      KAPO  MEMORY  COMMAND
w          failing  0 s    0         exit 3   start in 30 s      -    ann\\u001b  7     -       /bin/\\u{1b}x
a\\n\\udcff  dead     -      -         -        -                  -    -          -     -       -
w.sock     running  1 s    2         success  ttl in 1 h 59 min  9    ann\\u001b  7     2 MiB   /bin/\\u{1b}x
";
    assert_eq!(table, expected);
    let narrow = style(false, Some(20), true).table(&three());
    let expected = "\
NAME       STATE   …
\x1b[31mw          failing …\x1b[0m
\x1b[31ma\\n\\udcff  dead    …\x1b[0m
w.sock     running …
";
    assert_eq!(narrow, expected);
}

#[test]
fn json_has_every_member_of_every_instance() {
    let text = json(&three(), b"/run/kapo");
    let parsed = Json::parse(text.as_bytes()).unwrap();
    assert_eq!((text.lines().count(), parsed.list().len()), (3, 3));
    let names = |json: &Json| match json {
        Json::Object(members) => members.iter().map(|(name, _)| name.clone()).collect(),
        _ => Vec::new(),
    };
    assert_eq!((names(&parsed.list()[1]), names(&parsed.list()[0]).len()), (names(&parsed.list()[2]), 17));
    assert_eq!(
        text.lines().nth(1).unwrap(),
        r#"{"Name":"a\\n\\udcff","Socket":"/run/kapo/a\n\uefff.sock","State":"dead","KapoPid":0,"Uid":null,"Command":"","Pid":0,"Ready":false,"Flapping":false,"Restarts":0,"StartTime":"0001-01-01T00:00:00Z","NextStart":"0001-01-01T00:00:00Z","ExpiresAt":"0001-01-01T00:00:00Z","EndTime":"0001-01-01T00:00:00Z","ExitCode":0,"Reason":"","Memory":null},"#
    );
    assert_eq!(json(&[], b"/"), "[]\n");
}

#[test]
fn targets_have_a_host_and_the_path_of_the_socket() {
    let mut all = three();
    let odd = Instance { name: "o\\n".to_owned(), state: InstanceState::Stuck, ..Instance::new(b"o\n", 3) };
    all.push(odd);
    assert_eq!(
        file_sd(&all, b"/"),
        "[{\"targets\":[\"w\"],\"labels\":{\"instance\":\"w\",\"__unix_socket__\":\"/w\"}},\n\
         {\"targets\":[\"w.sock\"],\"labels\":{\"instance\":\"w.sock\",\"__unix_socket__\":\"/w.sock\"}},\n\
         {\"targets\":[\"localhost\"],\"labels\":{\"instance\":\"o\\\\n\",\"__unix_socket__\":\"/o\\n\"}}]\n"
    );
}

#[test]
fn targets_through_a_fleet_have_its_address_and_a_path() {
    let mut all = three();
    all.push(Instance { name: "d".to_owned(), state: InstanceState::Denied, ..Instance::new(b"d.sock", 3) });
    assert_eq!(
        through_fleet(&all, "[::1]:6670"),
        "[{\"targets\":[\"[::1]:6670\"],\"labels\":{\"__metrics_path__\":\"/i/w/metrics\",\"name\":\"w\"}},\n\
         {\"targets\":[\"[::1]:6670\"],\"labels\":{\"__metrics_path__\":\"/i/w.sock/metrics\",\"name\":\"w.sock\"}}]\n"
    );
}

#[test]
fn metrics_have_the_names_of_the_page_metrics() {
    let text = String::from_utf8(prom(&three())).unwrap();
    for line in [
        "kapo_up{name=\"a\\\\n\\\\udcff\"} 0",
        "kapo_up{name=\"w\"} 1",
        "kapo_child_up{name=\"w\"} 0",
        "kapo_child_starts_total{name=\"w.sock\"} 3",
        "kapo_child_last_exit_code{name=\"w\"} 3",
        "kapo_child_last_end_time_seconds{name=\"w\"} 1795773601",
        "kapo_child_last_success_time_seconds{name=\"w.sock\"} 1795773595",
        "# TYPE kapo_child_starts_total counter",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}: {text}");
    }
    for name in METRICS.iter().map(|(name, _)| *name).chain([UP.0]) {
        assert_eq!(text.matches(&format!("# TYPE {name} ")).count(), 1, "{name}");
    }
    assert_eq!(prom(&[]), b"");
    let watched = String::from_utf8(prom(&[of(b"w", r#""Status":"running","Mode":"watch""#)])).unwrap();
    assert!(watched.contains("kapo_child_up") && !watched.contains("starts_total"), "{watched}");
}

#[test]
fn a_user_without_a_name_is_a_number() {
    let passwd = b"root:x:0:0\n:x:5:\nbroken\nann:x:1000:1000::/:/bin/sh";
    for (user, name) in [(0, "root"), (1000, "ann"), (10, "10"), (4_294_967_295, "4294967295")] {
        assert_eq!(names::user(passwd, user), name);
    }
}
