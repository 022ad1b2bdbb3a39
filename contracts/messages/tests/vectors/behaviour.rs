//! What a program does with a message: builds it, changes it, views it in bytes, shows it in a log.

use mycelium_messages::message::{DynamicMessage as _, Encoding, I128, Problem, ViewError};
use mycelium_messages::zerocopy::{FromBytes as _, IntoBytes as _};
use mycelium_messages::{Message, ValidationError};

use super::golden::{
    CONTRACTS, Lists, ListsFields, Numbers, Packed, Rules, RulesFields, RulesState, Secret,
    SecretFields, Texts, Tier, Vecs, VecsFields, Wide, WideFields,
};

fn rules() -> RulesFields {
    RulesFields {
        count: 1,
        price: 0.5,
        change: -1.0,
        big: 1,
        colour: super::golden::Colour::RED,
        ..RulesFields::default()
    }
}

fn refused(fields: RulesFields) -> String {
    Rules::new(fields).expect_err("not valid").to_string()
}

#[test]
fn a_constructor_takes_natural_values_and_names_the_field_that_breaks_a_rule() {
    assert_eq!(Rules::new(rules()).map(|rules| rules.price), Ok(0.5));
    let text = refused(RulesFields {
        level: 6,
        ..rules()
    });
    assert_eq!(
        text,
        "message 'Rules', field 'level': value out of range: value=6, min=-5, max=5; stay inside"
    );
    let state = RulesState(3);
    assert!(refused(RulesFields { state, ..rules() }).contains("field 'state'"));
    assert!(
        refused(RulesFields {
            count: 0,
            ..rules()
        })
        .contains("field 'count': value is zero")
    );
    let share = f32::NAN;
    assert!(refused(RulesFields { share, ..rules() }).contains("field 'share'"));
}

#[test]
fn texts_and_vecs_are_set_by_their_natural_types_and_stay_if_that_fails() {
    let fields = VecsFields {
        odd_rows: &[[1, 2, 3]],
        prices: &[1.5, -2.5],
        small: &[-1, 2],
        ..VecsFields::default()
    };
    let mut vecs = Vecs::new(fields).expect("valid");
    assert_eq!(vecs.prices(), Ok(&[1.5, -2.5][..]));
    assert_eq!(vecs.fields(), Ok(fields));
    let failed = vecs.set_prices(&[0.0; 4]).expect_err("four of three");
    let expected =
        "message 'Vecs', field 'prices': length out of range: length=4, max=3; shorten the value";
    assert_eq!(failed.to_string(), expected);
    let failed = vecs.set_prices(&[]).expect_err("at least one");
    assert_eq!(failed.problem, Problem::TooShort { length: 0, min: 1 });
    assert_eq!(vecs.prices(), Ok(&[1.5, -2.5][..]));
    vecs.set_prices(&[9.0]).expect("one of three");
    assert_eq!(vecs.prices(), Ok(&[9.0][..]));
    assert_eq!(vecs.validate(), Ok(()));
}

#[test]
fn what_is_stored_in_another_form_is_read_through_a_getter() {
    let wide = Wide::new(WideFields {
        b: u128::MAX,
        c: -7,
        e: [1; 20],
        ..WideFields::default()
    })
    .expect("valid");
    assert_eq!((wide.b(), wide.c()), (u128::MAX, -7));
    assert_eq!(wide.c, I128::new(-7));
    let mut bytes = [0; size_of::<Numbers>()];
    bytes[28] = 2;
    let numbers = Numbers::read_from_bytes(&bytes).expect("the size");
    let failed = numbers.g().expect_err("neither 0 nor 1");
    assert_eq!((failed.message, failed.field), ("Numbers", "g"));
}

#[test]
fn payloads_are_viewed_in_place_or_copied_and_refused_with_the_numbers() {
    let rules = Rules::new(rules()).expect("valid");
    let mut room = [0_u64; 9];
    let room = room.as_mut_bytes();
    room[..64].copy_from_slice(rules.as_bytes());
    let view: &Rules = room[..64].try_into().expect("aligned and valid");
    assert_eq!(
        (view, std::ptr::from_ref(view).addr()),
        (&rules, room.as_ptr().addr())
    );

    let failed = <&Rules>::try_from(&room[..60]).expect_err("too short");
    let expected = "payload has the wrong size for message 'Rules': size=60, expected=64; \
                    check that both sides use the same contracts";
    assert_eq!(failed.to_string(), expected);
    assert_eq!(Rules::read(&room[..60]), Err(failed));

    room.copy_within(..64, 1);
    let failed = Rules::view(&room[1..65]).expect_err("an odd address");
    let expected =
        "payload is not aligned for message 'Rules': offset=1, align=16; copy it with Rules::read";
    assert_eq!(failed.to_string(), expected.replace("16", "8"));
    assert_eq!(Rules::read(&room[1..65]), Ok(rules));

    room[1] = 99;
    let failed = Rules::read(&room[1..65]).expect_err("a level of 99");
    assert!(matches!(
        failed,
        ViewError::Invalid(ValidationError { field: "level", .. })
    ));
}

#[test]
fn a_message_is_shown_on_one_line_of_bounded_length() {
    let lists = Lists::new(ListsFields {
        ints: &[-1, 2],
        hash: [0xAB; 33],
        ..ListsFields::default()
    })
    .expect("valid");
    let rows = ["0x0000"; 8].join(", ");
    let expected = format!(
        "Lists {{ words: [], longs: [], ints: [-1, 2], wides: [], hash: 0x{}… (33 bytes), grid: [{rows}, … 25 more] }}",
        "ab".repeat(32)
    );
    assert_eq!(lists.to_string(), expected);
    assert_eq!(format!("{lists:?}"), expected);
    assert_eq!(format!("{lists:#}"), expected);
    let rules = Rules::new(rules()).expect("valid");
    let expected = "Rules { level: 0, count: 1, share: 0.0, price: 0.5, change: -1.0, big: 1, chain: 0, state: UNKNOWN, colour: RED }";
    assert_eq!(rules.to_string(), expected);
    assert!(
        Texts::default()
            .to_string()
            .starts_with("Texts { a: \"\", ")
    );
}

#[test]
fn values_of_a_message_that_is_not_to_be_logged_appear_nowhere() {
    let legal = SecretFields {
        set_account: "visible",
        account: "DE4711",
        new: true,
        fields: &[7],
        amount: 12.25,
        limit: -77,
        tier: Tier::GOLD,
    };
    let secret = Secret::new(legal).expect("valid");
    assert_eq!(secret.account(), Ok("DE4711"));
    const { assert!(!Secret::LOG_PAYLOAD && Rules::LOG_PAYLOAD) };
    let shown = format!(
        "Secret {{ payload not logged, topic_id: 1009, size: {} }}",
        size_of::<Secret>()
    );
    assert_eq!(secret.to_string(), shown);
    assert_eq!(
        format!("{secret:?} {secret:#?} {legal:?}"),
        [&*shown; 3].join(" ")
    );

    let mut hidden = Vec::new();
    for fields in [
        SecretFields {
            amount: 4711.5,
            ..legal
        },
        SecretFields {
            limit: 4711,
            ..legal
        },
        SecretFields {
            tier: Tier(47),
            ..legal
        },
        SecretFields {
            account: "0x4711",
            ..legal
        },
        SecretFields {
            account: "4711471147114711",
            ..legal
        },
        SecretFields {
            account: "47",
            ..legal
        },
    ] {
        let failed = Secret::new(fields).expect_err("not valid");
        hidden.push(failed.field);
        let texts = format!("{failed} {failed:?}");
        assert!(!texts.contains("47"), "{texts}");
    }
    assert_eq!(
        hidden,
        ["amount", "limit", "tier", "account", "account", "account"]
    );
    let mut bytes = [0; size_of::<Secret>()];
    bytes.copy_from_slice(secret.as_bytes());
    let at = Secret::FIELDS
        .iter()
        .find(|field| field.name == "new")
        .expect("there")
        .offset;
    bytes[at] = 47;
    let failed = Secret::read(&bytes).expect_err("47 is no truth value");
    let expected = "message 'Secret', field 'new': not a truth value: value=(not logged), legal 0 or 1; write a bool";
    assert_eq!(failed.to_string(), expected);
    assert!(!format!("{failed:?}").contains("47"));
}

#[test]
fn a_file_knows_its_messages_and_a_dynamic_message_its_encoding() {
    assert_eq!(
        (Packed::TOPIC_ID, Packed::ENCODING),
        (50_000, Encoding::MsgPack)
    );
    assert_eq!((Packed::NAME, Packed::MAX_SIZE), ("Packed", 1024));
    let packed = CONTRACTS
        .messages
        .iter()
        .find(|message| message.name == "Packed");
    assert_eq!(
        packed.map(|message| message.layout_digest),
        Some(Packed::LAYOUT_DIGEST)
    );
    assert_eq!(Texts::KEY, ["venue", "a"]);
    assert_eq!(Texts::DELIVERY.name(), "conflate");
    let contracts = mycelium_contracts::load(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../tests/golden/grammar.yaml"
    ))
    .expect("valid");
    assert_eq!(CONTRACTS.to_json(), contracts.shape().to_json());
    assert_eq!(CONTRACTS.source_digest, contracts.source_digest());
}
