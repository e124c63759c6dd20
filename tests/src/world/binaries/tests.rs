use super::*;

#[test]
fn programs_and_tests_share_their_profiles_folder() {
    let release = Some(Path::new("/t/release"));
    assert_eq!(folder_of(Path::new("/t/release/xensim")), release);
    assert_eq!(folder_of(Path::new("/t/release/deps/third_party-0a1b2c")), release);
}
