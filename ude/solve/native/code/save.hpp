if (any(taken & le(soon, towards * until))) {
    const Num divisor = choose(eq(length, num(0)), num(1), length);
    @COEFFICIENTS@
    for (;;) {
        const B pending = taken & le(soon, towards * until);
        if (!any(pending)) break;
        const Num when = towards * soon;
        const Num theta = choose(pending, (when - since) / divisor, num(0));
        const B ends = eq(when, until);
        @STATE@
        alignas(64) Real result[D][W], scratch[D];
        alignas(64) int32_t chosen[W];
        @RESULT@
        spill(pending, chosen);
        // Without a branch: a sample that has nothing to save writes to where nobody reads.
        for (int l = 0; l < W; ++l) {
            Real* to = chosen[l] ? saved + target[l] : scratch;
            for (int i = 0; i < D; ++i) to[i] = result[i][l];
            target[l] -= chosen[l] * batch * D;
            place[l] -= chosen[l];
        }
        soon = times_at(place);
    }
}
