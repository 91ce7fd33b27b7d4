"""Secure aggregation: the hub learns the sum of the sites' integer vectors and nothing else about any one of them.

Pairwise masks and self masks with Shamir recovery, after Bonawitz et al. 2017 ("Practical Secure Aggregation for
Privacy-Preserving Machine Learning", CCS), with signed key messages and one answer a site instead of live sessions:

    every site   publish_sealing_key, once
    every site   make_round_keys      -> KeyMessage     fresh keys, their shares sealed to all planned sites
    hub          freeze_roster        -> Roster         which key messages take part
    every site   join_roster, mask    -> upload         checks every peer, then adds its masks
    hub          freeze_survivors     -> Survivors      whose uploads arrived
    survivors    answer               -> UnmaskAnswer   per member one share: self seed or mask key, never both
    hub          open_sum             -> the exact sum of the survivors' vectors

    protocol      the site's side
    opening       the hub's side
    records       what they exchange
    checks        what both verify before they use it
    masks         masks of 64-bit integers
    sealing       keys, and what is sealed to them
    shamir        secret sharing
    contribution  a site's part, before a mask is on it
    ckks          sums under homomorphic encryption instead

Guarantee
    against: a hub that reads everything and lies about who dropped out, together with up to c sites, in the sense
        that it learns nothing but the sum over at least max(threshold, members - tolerated_dropouts) survivors.
    needs: threshold > (n + c) / 2 of n share holders (`shamir.threshold_for`), an authority that certifies no site
        but the real ones, and sites that keep what they have joined and answered (`join_roster`, `answer`).
    does not: stop a site from uploading a wrong vector, or from making a round fail. Both are noticed or bounded
        elsewhere: a failed round names the site, a wrong vector is what clipping is for.
"""
