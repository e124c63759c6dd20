//! Random requests, in and out of overlapping transactions, against a map that knows no transactions.

use proptest::prelude::*;

use super::*;

/// The trivial model: every node's value by its path.
type Model = BTreeMap<String, String>;

#[derive(Clone, Debug)]
enum Step {
    Begin(usize),
    Do(usize, Op),
    End(usize, bool),
}

#[derive(Clone, Debug)]
enum Op {
    Read(String),
    List(String),
    Write(String, String),
    Mkdir(String),
    Remove(String),
}

fn path() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(vec!["a", "b", "c"]), 1..4)
        .prop_map(|parts| format!("/m/{}", parts.join("/")))
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        2 => path().prop_map(Op::Read),
        2 => path().prop_map(Op::List),
        4 => (path(), "[0-9]{0,2}").prop_map(|(path, value)| Op::Write(path, value)),
        1 => path().prop_map(Op::Mkdir),
        2 => path().prop_map(Op::Remove),
    ]
}

/// Slot 0 is no transaction; 1 to 3 are.
fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (1usize..4).prop_map(Step::Begin),
        8 => (0usize..4, op()).prop_map(|(slot, op)| Step::Do(slot, op)),
        2 => (1usize..4, any::<bool>()).prop_map(|(slot, commit)| Step::End(slot, commit)),
    ]
}

fn expected(model: &mut Model, op: &Op) -> Reply {
    let parents = |path: &str| {
        let cuts: Vec<_> = path.match_indices('/').map(|(at, _)| at).filter(|at| *at > 0).collect();
        cuts.into_iter().map(|at| path[..at].to_owned()).collect::<Vec<_>>()
    };
    let below = |path: &str, other: &str| other.strip_prefix(path).is_some_and(|rest| rest.starts_with('/'));
    match op {
        Op::Read(path) => model.get(path).map(|value| value.clone().into_bytes()).ok_or(Errno::Noent),
        Op::List(path) => {
            model.get(path).ok_or(Errno::Noent)?;
            let names: Vec<_> = model
                .keys()
                .filter_map(|other| other.strip_prefix(path.as_str())?.strip_prefix('/'))
                .filter(|name| !name.contains('/'))
                .collect();
            Ok(wire::strings(&names))
        }
        Op::Write(path, _) | Op::Mkdir(path) => {
            for parent in parents(path) {
                model.entry(parent).or_default();
            }
            match op {
                Op::Write(_, value) => drop(model.insert(path.clone(), value.clone())),
                _ => drop(model.entry(path.clone()).or_default()),
            }
            Ok(b"OK\0".to_vec())
        }
        Op::Remove(path) => {
            if !parents(path).last().is_some_and(|parent| model.contains_key(parent)) {
                return Err(Errno::Noent);
            }
            model.retain(|other, _| other != path && !below(path, other));
            Ok(b"OK\0".to_vec())
        }
    }
}

fn perform(bench: &mut Bench, id: ConnId, tx: u32, op: &Op) -> Reply {
    match op {
        Op::Read(path) => bench.ask(id, tx, Kind::READ, &wire::strings(&[path])),
        Op::List(path) => bench.ask(id, tx, Kind::DIRECTORY, &wire::strings(&[path])),
        Op::Write(path, value) => bench.ask(id, tx, Kind::WRITE, format!("{path}\0{value}").as_bytes()),
        Op::Mkdir(path) => bench.ask(id, tx, Kind::MKDIR, &wire::strings(&[path])),
        Op::Remove(path) => bench.ask(id, tx, Kind::RM, &wire::strings(&[path])),
    }
}

fn contents(bench: &Bench) -> Model {
    let nodes =
        bench.store.tree.iter().filter(|(path, _)| path.as_str() == "/m" || path.as_str().starts_with("/m/"));
    nodes.map(|(path, node)| (path.to_string(), String::from_utf8(node.value.clone()).unwrap())).collect()
}

/// What a watcher of `/m` knows who, for each event, looks again at that node, the nodes above and all below.
fn refresh(bench: &Bench, known: &mut Model, event: &str) {
    let now = contents(bench);
    let concerned = |path: &str| {
        let (short, long) = if path.len() < event.len() { (path, event) } else { (event, path) };
        long.strip_prefix(short).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    known.retain(|path, _| !concerned(path));
    known.extend(now.into_iter().filter(|(path, _)| concerned(path)));
}

#[derive(Default)]
struct Open {
    tx: u32,
    log: Vec<(Op, Reply)>,
    commits_at_start: usize,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// A transaction that commits could as well have run in one piece at that moment: every answer it got is the one it
    /// would get then. One that met a conflict changed nothing, and something did change under it. And a watcher knows all.
    #[test]
    fn transactions_are_serial(steps in prop::collection::vec(step(), 1..120)) {
        let mut bench = Bench::new();
        let watcher = bench.connect(DomId::DOM0);
        bench.watch(watcher, "/m", "t").unwrap();
        let dom0 = bench.dom0;
        let (mut model, mut known) = (Model::new(), Model::new());
        let mut open: [Option<Open>; 4] = Default::default();
        let mut commits = 0;
        for step in steps {
            match step {
                Step::Begin(slot) if open[slot].is_none() => {
                    let tx = bench.begin(dom0).unwrap();
                    open[slot] = Some(Open { tx, commits_at_start: commits, ..Open::default() });
                }
                Step::Do(0, op) => {
                    let before = model.clone();
                    prop_assert_eq!(perform(&mut bench, dom0, 0, &op), expected(&mut model, &op), "{:?}", op);
                    commits += usize::from(before != model || matches!(op, Op::Write(..)));
                }
                Step::Do(slot, op) => if let Some(open) = &mut open[slot] {
                    let reply = perform(&mut bench, dom0, open.tx, &op);
                    open.log.push((op, reply));
                },
                Step::End(slot, commit) => if let Some(open) = open[slot].take() {
                    let outcome = bench.end(dom0, open.tx, if commit { "T" } else { "F" });
                    match (commit, outcome) {
                        (true, Ok(())) => {
                            for (op, reply) in open.log {
                                prop_assert_eq!(&reply, &expected(&mut model, &op), "{:?}", op);
                                commits += usize::from(!matches!(op, Op::Read(_) | Op::List(_)));
                            }
                        }
                        (true, Err(errno)) => {
                            prop_assert_eq!(errno, Errno::Again);
                            prop_assert!(commits > open.commits_at_start, "a conflict with nobody");
                        }
                        (false, outcome) => prop_assert_eq!(outcome, Ok(())),
                    }
                },
                Step::Begin(_) => {}
            }
            prop_assert_eq!(&contents(&bench), &model);
            for event in bench.events(watcher) {
                refresh(&bench, &mut known, event.split(' ').next().unwrap());
            }
            prop_assert_eq!(&known, &model);
        }
        bench.check();
    }

    /// Whatever a guest sends, the store stays whole, in its bounds, and closed to it.
    #[test]
    fn guests_stay_within_their_bounds(
        requests in prop::collection::vec(
            (0u32..24, 0u32..3, prop_oneof![
                prop::collection::vec(any::<u8>(), 0..40),
                "(data|/local/domain/5/data|/tool|/local/domain/6/data)(/[ab]){0,3}".prop_map(|path| wire::strings(&[path])),
                ("data(/[ab]){0,2}", "[nrwb]5").prop_map(|(path, perm)| wire::strings(&[path, perm])),
                Just(b"T\0".to_vec()),
            ]), 1..150),
    ) {
        let mut bench = Bench::new();
        let guest = bench.connect(GUEST);
        bench.write(bench.dom0, "/local/domain/6/data/secret", "unchanged").unwrap();
        for (kind, tx, payload) in requests {
            let _ = bench.ask(guest, tx, Kind(kind), &payload);
        }
        bench.check();
        prop_assert!(bench.store.tree.owned(GUEST) <= Quota::DEFAULT.nodes);
        let secret = bench.read(bench.dom0, "/local/domain/6/data/secret");
        prop_assert_eq!(secret.as_deref(), Ok("unchanged"));
        prop_assert_eq!(bench.list(bench.dom0, "/tool"), Ok(vec!["xenstored".to_owned()]));
    }
}
