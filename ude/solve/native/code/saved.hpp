if (from_saved && any(taken & gt(soon, towards * t[0]))) {
    const Num since = t[0], length = dt[0];
    const Num divisor = choose(eq(length, num(0)), num(1), length);
    F64 of_total[DEGREE][D];
    for (int j = 0; j < DEGREE; ++j)
        for (int i = 0; i < D; ++i) of_total[j][i] = f64(0);
    for (;;) {
        const B pending = taken & gt(soon, towards * since);
        if (!any(pending)) break;
        const Num when = towards * soon;
        const B ends = eq(when, until) & pending, within = pending & ~ends;
        const Num theta = choose(within, (when - since) / divisor, num(0));
        alignas(64) Real arriving[D][W];
        alignas(64) int32_t chosen[W];
        spill(pending, chosen);
        for (int l = 0; l < W; ++l) {
            const Real* from = chosen[l] ? from_saved + ((int64_t)place[l] * batch + sample[l]) * D : from_saved;
            for (int i = 0; i < D; ++i) arriving[i][l] = chosen[l] ? from[i] : 0;
            place[l] += chosen[l];
        }
        soon = times_at(place);
        Num incoming[D];
        for (int i = 0; i < D; ++i) {
            Num x;
            std::memcpy(&x, arriving[i], sizeof x);
            of_end[i] += choose(ends, x, num(0));
            incoming[i] = choose(within, x, num(0));
        }
        @STATE@
        @ADDED@
    }
    @STAGES@
}
