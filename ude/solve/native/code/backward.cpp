// Cotangents of everything a solve returned, carried from its last attempt back to its start.
extern "C" int64_t backward(const int64_t* size, void* const* ptr) {
    const int64_t begin = size[0], end = size[1], batch = size[2];
    const bool is_first = size[7];
    @SAVING@
    int64_t* next = (int64_t*)ptr[2];                // the first time after those that were saved; overwritten
    const Real* origin = (const Real*)ptr[3];
    const Real* start = (const Real*)ptr[4];
    const Real* numbers = (const Real*)ptr[5];
    const bool* flags = (const bool*)ptr[6];
    const Real* history = (const Real*)ptr[7];
    const int64_t* made = (const int64_t*)ptr[8];
    const Real* from_saved = (const Real*)ptr[9];    // null, as all of these, where there is no cotangent
    const Real* from_error = (const Real*)ptr[10];
    const Real* from_stiffness = (const Real*)ptr[11];
    const Real* from_states = (const Real*)ptr[12];
    const bool* begun = (const bool*)ptr[13];        // samples whose first point was made here
    void* const* ends = ptr + 14;                    // cotangents of state and carry, overwritten
    void* const* sums = ends + MOVING;               // those of other inputs, added to
    void* const* given = sums + WANTED;
    @SHARED@
    for (int64_t first = begin; first < end; first += W) {
        const int count = end - first < W ? end - first : W;
        int64_t sample[W];
        alignas(64) int32_t place[W];
        Num towards = num(1);
        for (int l = 0; l < W; ++l) {
            sample[l] = first + (l < count ? l : count - 1);
            place[l] = l < count ? next[first + l] - 1 : -1;
            put(towards, l, directions[sample[l]]);
        }
        if (first == begin || !share) fill_line(sample);
        Num soon = times_at(place);
        @LOAD@
        for (int64_t row = made[first / W] - 1; row >= 0; --row) {
            B active, taken;
            Num until, error;
            const Real* from = numbers + row * 5 * batch + first;
            load_row(t[0], from, count);
            load_row(dt[0], from + batch, count);
            load_row(until, from + 2 * batch, count);
            load_row(error, from + 3 * batch, count);
            load(active, flags + (row * 2 + 0) * batch, 1, sample);
            load(taken, flags + (row * 2 + 1) * batch, 1, sample);
            for (int l = count; l < W; ++l) { put(active, l, 0); put(taken, l, 0); }
            if (!any(active)) continue;
            if (!any(taken) && !from_error && !from_stiffness && !from_states) continue;
            const B good = active & lt(error, num(INFINITY));
            {
                const Real* from = history + row * H * batch + first;
                @HISTORY@
            }
            Num of_end[D], extra[D], of_error[1] = {num(0)}, of_stiffness[1] = {num(0)}, of_stage[STAGES][D];
            for (int i = 0; i < D; ++i) {
                of_end[i] = choose(taken, to_y[i], num(0));
                extra[i] = num(0);
                for (int j = 0; j < STAGES; ++j) of_stage[j][i] = num(0);
                @CARRIED@
            }
            if (from_error) {
                load_row(of_error[0], from_error + row * batch + first, count);
                of_error[0] = choose(good, of_error[0], num(0));
            }
            if (from_stiffness) {
                load_row(of_stiffness[0], from_stiffness + row * batch + first, count);
                of_stiffness[0] = choose(good, of_stiffness[0], num(0));
            }
            if (from_states) {
                const Real* from = from_states + row * (2 + STAGES) * batch * D;
                for (int j = 0; j < 2 + STAGES; ++j)
                    for (int i = 0; i < D; ++i) {
                        Num x;
                        load(x, from + j * batch * D + i, D, sample);
                        Num* to = j == 0 ? of_end : j == 1 ? extra : of_stage[j - 2];
                        to[i] += choose(good, x, num(0));
                    }
            }
            @SAVED@
            @TYPICAL@
            @STEP@
            @MOVED@
        }
        if (begun && made[first / W]) {
            @BEGINNING@
        }
        for (int l = 0; l < count; ++l) next[first + l] = place[l] + 1;
        if (from_saved && is_first)
            for (int l = 0; l < count; ++l) {
                const int64_t b = first + l;
                if (start[b] != origin[b]) continue;
                for (int64_t at = place[l]; at >= 0 && time_of(at, b) == origin[b]; --at)
                    for (int i = 0; i < D; ++i)
                        put(to_y[i], l, get(to_y[i], l) + from_saved[(at * batch + b) * D + i]);
            }
        @STORE@
    }
    std::free(line);
    return 0;
}
