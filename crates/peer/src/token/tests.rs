//! Tokens: their form, and when they are good.

use super::*;

fn drawn() -> (Token, StoredToken, SystemTime) {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    let addresses = ["127.0.0.1:8701", "[::1]:8702"].map(|at| at.parse().expect("an address"));
    let (token, stored) =
        Token::draw(CaHash::of(b"a certificate"), addresses.into(), now).expect("a token");
    (token, stored, now)
}

#[test]
fn a_token_is_read_as_it_was_printed() {
    let (token, ..) = drawn();
    let text = token.reveal();
    assert!(text.reveal().starts_with("sampan1."), "{}", text.reveal());
    assert_eq!(Token::parse(text.reveal()).expect("a token"), token);
    let padded = format!("\n {} \n", text.reveal());
    assert_eq!(Token::parse(&padded).expect("a token"), token);
}

#[test]
fn what_is_cut_off_or_changed_in_its_form_is_no_token() {
    let (token, ..) = drawn();
    let text = token.reveal().reveal().to_owned();
    let (ca, id, secret) = (token.ca.to_hex(), &token.id, token.secret.reveal());
    for at in 0..text.find('@').expect("addresses") {
        assert_eq!(
            Token::parse(&text[..at]),
            Err(TokenError::Malformed),
            "{at}"
        );
    }
    for bad in [
        format!("sampan2.{ca}.{id}.{secret}@127.0.0.1:1"),
        format!("sampan1.{ca}.{id}.{secret}.x@127.0.0.1:1"),
        format!("sampan1.{ca}.{id}.{secret}@"),
        format!("sampan1.{ca}.{id}.{secret}@somewhere:1"),
        format!("sampan1.{ca}.{id}.{secret}@127.0.0.1"),
        format!("sampan1.{ca}.../{id}.{secret}@127.0.0.1:1"),
        format!(
            "sampan1.{ca}.{}.{secret}@127.0.0.1:1",
            id.replace(|_| true, "/")
        ),
        format!("sampan1.{}.{id}.{secret}@127.0.0.1:1", &ca[2..]),
        format!(
            "sampan1.{ca}.{id}.{secret}@{}",
            vec!["127.0.0.1:1"; 17].join(",")
        ),
    ] {
        assert_eq!(Token::parse(&bad), Err(TokenError::Malformed), "{bad}");
    }
}

#[test]
fn a_token_is_good_for_an_hour_and_with_its_secret_alone() {
    let (token, stored, now) = drawn();
    let check =
        |id: &str, secret: &Sensitive, after: Duration| stored.check(id, secret, now + after);
    let almost = TOKEN_LIFETIME - Duration::from_millis(1);
    assert_eq!(check(&token.id, &token.secret, Duration::ZERO), Ok(()));
    assert_eq!(check(&token.id, &token.secret, almost), Ok(()));
    let expired = check(&token.id, &token.secret, TOKEN_LIFETIME);
    assert_eq!(expired, Err(TokenError::Expired));

    let (other, ..) = drawn();
    for (id, secret) in [(&token.id, &other.secret), (&other.id, &token.secret)] {
        for after in [Duration::ZERO, TOKEN_LIFETIME] {
            assert_eq!(check(id, secret, after), Err(TokenError::Unknown));
        }
    }
}

#[test]
fn neither_what_is_kept_nor_what_is_printed_of_a_token_has_its_secret() {
    let (token, stored, _) = drawn();
    let secret = token.secret.reveal();
    let kept = serde_json::to_string(&stored).expect("JSON");
    assert!(!kept.contains(secret), "{kept}");
    assert!(!format!("{token:?}").contains(secret), "{token:?}");
}
