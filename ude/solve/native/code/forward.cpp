// Attempts of all samples, group by group, each until its samples are done.
extern "C" int64_t forward(const int64_t* size, void* const* ptr) {
    const int64_t begin = size[0], end = size[1], batch = size[2], capacity = size[3];
    const bool is_first = size[7];
    @SAVING@
    int64_t* next = (int64_t*)ptr[2];      // the first time that is still to be saved; overwritten
    Real* saved = (Real*)ptr[3];           // [saves][batch][D]
    int64_t* earliest = (int64_t*)ptr[4];  // the first time that was saved
    const Real* origin = (const Real*)ptr[5];
    Real* numbers = (Real*)ptr[6];         // [attempts][5][batch]: t, dt, t1, error, stiffness
    bool* flags = (bool*)ptr[7];           // [attempts][2][batch]: active, accepted
    Real* states = (Real*)ptr[8];          // [attempts][2 + STAGES][batch][D], or null: y1, y0, stages
    Real* history = (Real*)ptr[9];         // [attempts][H][batch], or null: state and carry before the attempt
    int64_t* made = (int64_t*)ptr[10];     // attempts of every group
    int64_t* report = (int64_t*)ptr[11];   // made 1: a sample is not done; a time was not saved
    void* const* memory = ptr + 12;        // the point, overwritten
    void* const* given = memory + POINTS;
    @SHARED@
    int64_t most = 0;
    for (int64_t first = begin; first < end; first += W) {
        const int count = end - first < W ? end - first : W;
        int64_t sample[W];
        for (int l = 0; l < W; ++l) sample[l] = first + (l < count ? l : count - 1);
        @LOAD@
        if (any(eq(status[0], i64(NOT_BEGUN)))) {
            @START@
        }
        for (int l = count; l < W; ++l) put(status[0], l, 0);

        alignas(64) int32_t place[W];
        int64_t target[W];  // where the state at that time goes
        Num towards = num(1);
        for (int l = 0; l < W; ++l) place[l] = saves;
        for (int l = 0; l < count; ++l) {
            const int64_t b = first + l;
            const Real begins = get(t[0], l);
            int64_t s = is_first ? 0 : next[b];
            put(towards, l, directions[b]);
            if (is_first) {
                // States saved at the very start; earlier times are none of this solve.
                while (s < saves && after(begins, time_of(s, b), directions[b])) ++s;
                earliest[b] = s;
                for (; s < saves && time_of(s, b) == begins; ++s) {
                    if (begins != origin[b]) { earliest[b] = s + 1; continue; }
                    for (int i = 0; i < D; ++i) saved[(s * batch + b) * D + i] = get(y[i], l);
                }
            }
            place[l] = s;
        }
        for (int l = 0; l < W; ++l) target[l] = (place[l] * batch + sample[l]) * D;
        if (first == begin || !share) fill_line(sample);
        Num soon = times_at(place);

        int64_t row = 0;
        for (; row < capacity && any(eq(status[0], i64(RUNNING))); ++row) {
            if (history) {
                Real* to = history + row * H * batch + first;
                @HISTORY@
            }
            @ATTEMPT@
            Real* to = numbers + row * 5 * batch + first;
            @NUMBERS@
            bool* signs = flags + row * 2 * batch;
            @FLAGS@
            if (states) {
                Real* to = states + row * (2 + STAGES) * batch * D;
                @STATES@
            }
            @SAVE@
            @FOLLOWING@
        }
        most = row > most ? row : most;
        made[first / W] = row;
        for (int l = 0; l < count; ++l) {
            const int64_t b = first + l;
            next[b] = place[l];
            if (get(status[0], l) < 0) report[0] = 1;
            if (earliest[b] != 0 || place[l] != saves) report[1] = 1;
        }
        @STORE@
    }
    std::free(line);
    return most;
}

// Rows of samples that were done before others: they stand still.
extern "C" int64_t level(const int64_t* size, void* const* ptr) {
    const int64_t begin = size[0], end = size[1], batch = size[2], rows = size[3];
    Real* numbers = (Real*)ptr[0];
    bool* flags = (bool*)ptr[1];
    const int64_t* made = (const int64_t*)ptr[2];
    const Real* t = (const Real*)ptr[3];
    for (int64_t first = begin; first < end; first += W) {
        const int64_t last = first + W < end ? first + W : end;
        for (int64_t row = made[first / W]; row < rows; ++row)
            for (int64_t b = first; b < last; ++b) {
                for (int k = 0; k < 5; ++k) numbers[(row * 5 + k) * batch + b] = k == 0 || k == 2 ? t[b] : 0;
                flags[(row * 2) * batch + b] = flags[(row * 2 + 1) * batch + b] = false;
            }
    }
    return 0;
}
