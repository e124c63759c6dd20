use super::*;

#[test]
fn every_question_survives_the_way() {
    let dom = DomId(7);
    let asks = [
        Ask::Hello { version: VERSION, dom },
        Ask::CreateDomain { pages: 9 },
        Ask::DestroyDomain { dom },
        Ask::ListDomains { after: None },
        Ask::ListDomains { after: Some(dom) },
        Ask::Guest { dom, map: true },
        Ask::Guest { dom, map: false },
        Ask::Reserve { pages: u32::MAX },
        Ask::Unreserve { pages: Run { first: 3, count: 4 } },
        Ask::AllocUnbound { remote: dom },
        Ask::Bind { remote: dom, port: Port(5) },
        Ask::Close { port: Port(5) },
    ];
    asks.iter().for_each(|ask| assert_eq!(Ask::parse(&ask.words()), Some(*ask)));
}

#[test]
fn every_answer_survives_the_way() {
    let answers = [
        Answer::Done,
        Answer::Domain(DomId(3)),
        Answer::Domains(vec![DomId(0), DomId(0x7FEF)], true),
        Answer::Domains(vec![], false),
        Answer::Guest { info: GuestInfo { dom: DomId(1), pages: 2, salt: 3 }, slot: 4 },
        Answer::Pages(Run { first: 0, count: u32::MAX }),
        Answer::Port(Port(1)),
        Answer::Refused(Refusal::Garbled),
        Answer::Refused(Refusal::Version(2)),
        Answer::Refused(Refusal::NoDomain(DomId(1))),
        Answer::Refused(Refusal::NotUnbound),
        Answer::Refused(Refusal::NotBound(Port(2))),
        Answer::Refused(Refusal::Exhausted),
        Answer::Refused(Refusal::System(-1)),
    ];
    answers.iter().for_each(|answer| assert_eq!(Answer::parse(&answer.words()).as_ref(), Some(answer)));
}

#[test]
fn nonsense_is_refused() {
    for words in [&[][..], &[0], &[1, 1], &[3, 0x1_0000], &[11, 0], &[2, 1, 1]] {
        assert_eq!(Ask::parse(words), None, "{words:?}");
    }
}
