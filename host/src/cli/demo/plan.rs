//! What the demo does, decided before anything is done: the same seed makes the same users, follows and posts.

/// Follows of one user, at most.
const FOLLOWS_MAX: usize = 18;
/// Likes of one post, at most.
const LIKES_MAX: usize = 12;
/// Comments on one post, at most.
const COMMENTS_MAX: usize = 4;
/// Exponent of the Zipf distribution of popularity: near that of real networks.
const ZIPF_EXPONENT: f64 = 1.1;
/// Draws for each thing wanted before fewer are taken: the popular are drawn again and again.
const DRAWS_MAX: usize = 24;

/// SplitMix64 (Steele, Lea, Flood 2014): the same numbers in every version of every library.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Numbers that follow from a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: usize) -> usize {
        let wide = u128::from(self.next()) * bound as u128;
        usize::try_from(wide >> 64).expect("it is below a usize")
    }

    /// A number from 0 up to 1.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Draws of users by popularity: the n-th most popular is drawn 1/n^s times as often as the first.
#[derive(Debug)]
struct Popularity {
    /// Users, the most popular first.
    ranked: Vec<usize>,
    /// Sums of the weights up to each rank.
    sums: Vec<f64>,
}

impl Popularity {
    fn new(users: usize, random: &mut Random) -> Self {
        let mut ranked: Vec<usize> = (0..users).collect();
        for at in (1..users).rev() {
            ranked.swap(at, random.below(at + 1));
        }
        let mut sum = 0.0;
        let sums = (1..=users).map(|rank| {
            sum += (rank as f64).powf(-ZIPF_EXPONENT);
            sum
        });
        Self {
            ranked,
            sums: sums.collect(),
        }
    }

    fn draw(&self, random: &mut Random) -> usize {
        let wanted = random.unit() * self.sums.last().copied().unwrap_or(1.0);
        let rank = self.sums.partition_point(|sum| *sum <= wanted);
        self.ranked[rank.min(self.ranked.len() - 1)]
    }
}

/// A comment to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Comment {
    pub user: usize,
    pub post: usize,
    pub text: String,
}

/// A post to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Post {
    pub author: usize,
    pub text: String,
}

/// Everything that shall be done. Users and posts are numbered from 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub users: usize,
    /// Follower and followed.
    pub follows: Vec<(usize, usize)>,
    pub posts: Vec<Post>,
    /// User and post.
    pub likes: Vec<(usize, usize)>,
    pub comments: Vec<Comment>,
}

impl Plan {
    /// The plan that follows from a seed.
    pub fn new(users: usize, posts: usize, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let popularity = Popularity::new(users, &mut random);
        let mut plan = Self {
            users,
            ..Self::default()
        };
        for follower in 0..users {
            plan.add_follows(follower, &popularity, &mut random);
        }
        plan.posts = (0..posts)
            .map(|_| Post {
                author: popularity.draw(&mut random),
                text: words::post(&mut random),
            })
            .collect();
        let followers = plan.followers();
        for post in 0..posts {
            plan.add_reactions(post, &followers[plan.posts[post].author], &mut random);
        }
        plan
    }

    fn add_follows(&mut self, follower: usize, popularity: &Popularity, random: &mut Random) {
        let most = FOLLOWS_MAX.min(self.users - 1);
        if most == 0 {
            return;
        }
        let wanted = 1 + random.below(most);
        let mut followed: Vec<usize> = Vec::new();
        for _ in 0..wanted * DRAWS_MAX {
            let other = popularity.draw(random);
            if other != follower && !followed.contains(&other) {
                followed.push(other);
            }
            if followed.len() == wanted {
                break;
            }
        }
        self.follows
            .extend(followed.into_iter().map(|other| (follower, other)));
    }

    /// Likes and comments come from those who see the post.
    fn add_reactions(&mut self, post: usize, followers: &[usize], random: &mut Random) {
        if followers.is_empty() {
            return;
        }
        let mut likers: Vec<usize> = Vec::new();
        for _ in 0..random.below(LIKES_MAX.min(followers.len()) + 1) {
            let user = followers[random.below(followers.len())];
            if !likers.contains(&user) {
                likers.push(user);
            }
        }
        self.likes
            .extend(likers.into_iter().map(|user| (user, post)));
        for _ in 0..random.below(COMMENTS_MAX.min(followers.len()) + 1) {
            let user = followers[random.below(followers.len())];
            self.comments.push(Comment {
                user,
                post,
                text: words::comment(random),
            });
        }
    }

    /// The followers of each user.
    pub fn followers(&self) -> Vec<Vec<usize>> {
        let mut followers = vec![Vec::new(); self.users];
        for (follower, followed) in &self.follows {
            followers[*followed].push(*follower);
        }
        followers
    }

    /// Posts of others that shall be in each user's home timeline.
    pub fn deliveries(&self) -> Vec<usize> {
        let followers = self.followers();
        let mut deliveries = vec![0; self.users];
        for post in &self.posts {
            for follower in &followers[post.author] {
                deliveries[*follower] += 1;
            }
        }
        deliveries
    }

    /// Notifications that each user shall have: of posts delivered, follows, likes and comments of others.
    pub fn notifications(&self) -> Vec<usize> {
        let mut notifications = self.deliveries();
        for (_, followed) in &self.follows {
            notifications[*followed] += 1;
        }
        let reactions = self.likes.iter().map(|(user, post)| (*user, *post));
        for (user, post) in reactions.chain(
            self.comments
                .iter()
                .map(|comment| (comment.user, comment.post)),
        ) {
            let author = self.posts[post].author;
            if user != author {
                notifications[author] += 1;
            }
        }
        notifications
    }
}

/// Something to say.
mod words {
    use super::Random;

    const OPENINGS: &[&str] = &[
        "Today I learnt that",
        "Unpopular opinion:",
        "Note to self:",
        "It turns out that",
        "After a long walk:",
        "Hot take:",
        "Morning thought:",
        "Nobody tells you that",
        "Reminder:",
        "I keep forgetting that",
    ];
    const SUBJECTS: &[&str] = &[
        "a queue",
        "a good test",
        "the old bridge",
        "fresh bread",
        "a small function",
        "the night train",
        "a map",
        "an honest error message",
        "the sea",
        "a quiet morning",
        "the second draft",
        "a borrowed book",
    ];
    const VERBS: &[&str] = &[
        "beats",
        "needs",
        "explains",
        "outlives",
        "deserves",
        "teaches",
        "hides",
        "forgives",
        "resembles",
        "rewards",
    ];
    const OBJECTS: &[&str] = &[
        "patience",
        "a clever plan",
        "every meeting",
        "good coffee",
        "a second look",
        "the whole weather",
        "any framework",
        "a long holiday",
        "kindness",
        "the first impression",
    ];
    const COMMENTS: &[&str] = &[
        "So true.",
        "I had not seen it that way.",
        "Says who?",
        "Saving this.",
        "Made my day.",
        "Now I want to try it.",
        "My grandmother said the same.",
        "Source?",
        "This, a hundred times.",
        "Could not agree less.",
    ];

    fn pick(words: &'static [&'static str], random: &mut Random) -> &'static str {
        words[random.below(words.len())]
    }

    pub fn post(random: &mut Random) -> String {
        let (opening, subject) = (pick(OPENINGS, random), pick(SUBJECTS, random));
        format!(
            "{opening} {subject} {} {}.",
            pick(VERBS, random),
            pick(OBJECTS, random)
        )
    }

    pub fn comment(random: &mut Random) -> String {
        pick(COMMENTS, random).to_owned()
    }
}

/// First names, for users who look like some.
const NAMES: &[&str] = &[
    "ada", "bo", "cleo", "dara", "eli", "fern", "gil", "hana", "ivo", "juno", "kai", "lea", "mika",
    "nils", "oda", "pia", "quinn", "rosa", "sol", "tove", "uma", "vera", "wim", "xenia", "yuri",
    "zoe",
];

/// A user's name, which nobody else has: `ada_mfp3k9z1_4`.
pub fn username(run: &str, user: usize) -> String {
    format!("{}_{run}_{user}", NAMES[user % NAMES.len()])
}

/// The name that people see.
pub fn display_name(user: usize) -> String {
    let name = NAMES[user % NAMES.len()];
    let (first, rest) = name.split_at(1);
    match user / NAMES.len() {
        0 => format!("{}{rest}", first.to_uppercase()),
        again => format!("{}{rest} {}", first.to_uppercase(), again + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_same_seed_makes_the_same_plan() {
        assert_eq!(Plan::new(50, 100, 42), Plan::new(50, 100, 42));
        assert_ne!(Plan::new(50, 100, 42), Plan::new(50, 100, 43));
        assert_eq!(
            Random::new(0).next(),
            0xe220_a839_7b1d_cdaf,
            "SplitMix64's published first number"
        );
    }

    #[test]
    fn nothing_is_done_twice_or_to_oneself() {
        let plan = Plan::new(40, 200, 7);
        assert!(
            plan.follows
                .iter()
                .all(|(follower, followed)| follower != followed)
        );
        let distinct: BTreeSet<_> = plan.follows.iter().collect();
        assert_eq!(distinct.len(), plan.follows.len());
        let distinct: BTreeSet<_> = plan.likes.iter().collect();
        assert_eq!(distinct.len(), plan.likes.len());
        assert!(
            plan.likes
                .iter()
                .all(|(user, post)| *user != plan.posts[*post].author)
        );
        assert_eq!(plan.posts.len(), 200);
    }

    #[test]
    fn popularity_is_skewed() {
        let plan = Plan::new(500, 0, 1);
        let mut counts: Vec<usize> = plan.followers().iter().map(Vec::len).collect();
        counts.sort_unstable_by(|a, b| b.cmp(a));
        let all: usize = counts.iter().sum();
        let first_tenth: usize = counts[..50].iter().sum();
        assert!(
            first_tenth * 2 > all,
            "a tenth of the users has {first_tenth} of {all} followers"
        );
    }

    #[test]
    fn counts_what_must_arrive() {
        let plan = Plan {
            users: 3,
            follows: vec![(1, 0), (2, 0), (0, 1)],
            posts: vec![
                Post {
                    author: 0,
                    text: "a".into(),
                },
                Post {
                    author: 1,
                    text: "b".into(),
                },
            ],
            likes: vec![(1, 0)],
            comments: vec![Comment {
                user: 2,
                post: 0,
                text: "c".into(),
            }],
        };
        assert_eq!(plan.deliveries(), [1, 1, 1]);
        // User 0: one delivery, two follows, a like, a comment. User 1: one delivery, one follow. User 2: one delivery.
        assert_eq!(plan.notifications(), [5, 2, 1]);
    }

    #[test]
    fn one_user_alone_and_no_posts_are_plans_too() {
        let plan = Plan::new(1, 3, 9);
        assert!(plan.follows.is_empty() && plan.likes.is_empty() && plan.posts.len() == 3);
        assert_eq!(Plan::new(2, 0, 9).deliveries(), [0, 0]);
    }

    #[test]
    fn names_differ_and_fit() {
        let names: BTreeSet<String> = (0..1_000).map(|user| username("mfp3k9z1", user)).collect();
        assert_eq!(names.len(), 1_000);
        assert!(names.iter().all(|name| (3..=32).contains(&name.len())));
        assert_eq!(
            (display_name(0).as_str(), display_name(26).as_str()),
            ("Ada", "Ada 2")
        );
    }
}
