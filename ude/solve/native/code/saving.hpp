// Times to save at: number `s` of sample `b`, and which of two comes later in the direction of a sample.
const Real* ts = (const Real*)ptr[0];
const int64_t saves = size[4], time_stride = size[5], batch_stride = size[6];
const Real* directions = (const Real*)ptr[1];
auto time_of = [&](int64_t s, int64_t b) { return ts[s * time_stride + b * batch_stride]; };
auto after = [&](Real a, Real b, Real direction) { return direction * a > direction * b; };
// The time at `place` of every sample, seen as running forwards; `none` where there is none.
auto times_at = [&](const int64_t* place, const int64_t* sample, Real none) {
    alignas(64) Real x[W];
    for (int l = 0; l < W; ++l) {
        const bool some = place[l] >= 0 && place[l] < saves;
        x[l] = some ? directions[sample[l]] * time_of(some ? place[l] : 0, sample[l]) : none;
    }
    Num r;
    std::memcpy(&r, x, sizeof r);
    return r;
};
